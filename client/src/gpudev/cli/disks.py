"""Commands about disks."""

from typing import Annotated

import typer

from gpudev import Client
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.keyfile import open_client
from gpudev.cli.output import AsJson, print_fields, print_json, print_line, print_table
from gpudev.models import Disk, DiskOperation

disk = typer.Typer(help="Persistent disks.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Of the disk.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]


@disk.command("create")
def create(
    name: Name,
    size: Annotated[int | None, typer.Option("--size", "-s", help="In GB; default 100.")] = None,
    from_snapshot: Annotated[str | None, typer.Option(help="Id of a snapshot of yours to begin with.")] = None,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """Make a disk."""
    with open_client() as client:
        _finish(
            client,
            client.create_disk(name, size_gb=size, from_snapshot=from_snapshot),
            wait=not no_wait,
            as_json=as_json,
        )


@disk.command("list")
def list_disks(
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones, too.")] = False, as_json: AsJson = False
) -> None:
    """List your disks, newest first."""
    with open_client() as client:
        found = list(client.iter_disks(include_deleted=deleted))
    if as_json:
        print_json(found)
        return
    rows = [(d.disk_name, d.size_gb, _state(d), d.snapshot_count, d.created_at, d.last_used) for d in found]
    print_table(["DISK", "GB", "STATE", "SNAPSHOTS", "CREATED", "LAST USED"], rows)


@disk.command("show")
def show(name: Name, as_json: AsJson = False) -> None:
    """Show everything about a disk."""
    with open_client() as client:
        found = client.get_disk(name)
    if as_json:
        print_json(found)
    else:
        print_fields((field, getattr(found, field)) for field in Disk.__struct_fields__)


@disk.command("rename")
def rename(name: Name, new_name: Annotated[str, typer.Argument()], as_json: AsJson = False) -> None:
    """Rename a disk that is not in use."""
    with open_client() as client:
        answer = client.rename_disk(name, new_name=new_name)
    if as_json:
        print_json(answer)
    else:
        print_line(answer.message)


@disk.command("delete")
def delete(name: Name, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Delete a disk; it can be restored for some time."""
    with open_client() as client:
        _finish(client, client.delete_disk(name), wait=not no_wait, as_json=as_json)


@disk.command("restore")
def restore(name: Name, no_wait: NoWait = False, as_json: AsJson = False) -> None:
    """Bring back a deleted disk."""
    with open_client() as client:
        _finish(client, client.restore_disk(name), wait=not no_wait, as_json=as_json)


@disk.command("snapshots")
def snapshots(
    name: Name,
    take: Annotated[bool, typer.Option("--take", help="Take one now.")] = False,
    no_wait: NoWait = False,
    as_json: AsJson = False,
) -> None:
    """List a disk's snapshots, newest first, or take one."""
    with open_client() as client:
        if take:
            _finish(client, client.create_disk_snapshot(name), wait=not no_wait, as_json=as_json)
            return
        found = list(client.iter_disk_snapshots(name))
    if as_json:
        print_json(found)
        return
    rows = [(s.ebs_snapshot_id, s.state, s.created_at, s.size_gb, s.reservation_id, s.error) for s in found]
    print_table(["SNAPSHOT", "STATE", "CREATED", "GB", "AFTER JOB", "ERROR"], rows)


@disk.command("content")
def content(name: Name, as_json: AsJson = False) -> None:
    """List what is on a disk, as it was when the last job that used it ended."""
    with open_client() as client:
        found = client.get_disk_content(name)
    if as_json:
        print_json(found)
    else:
        print_line((found.content if found.content is not None else found.message or "").rstrip("\n"))


def _finish(client: Client, requested: DiskOperation, *, wait: bool, as_json: bool) -> None:
    """Tell a request, or, after waiting, its outcome."""
    if not wait:
        if as_json:
            print_json(requested)
        else:
            print_line(requested.message)
        return
    state = client.wait_for_disk_operation(requested)
    if as_json:
        print_json(state)
    if state.status == "failed":
        raise CommandError(
            f"{requested.action} of {requested.disk_name} failed: {state.error}",
            ExitCode.REFUSED,
            f"`gpudev disk show {requested.disk_name}` tells its state.",
        )
    if not as_json:
        print_line(requested.message if state.completed else f"{requested.message}; it is not done yet")


def _state(found: Disk) -> str:
    if found.is_deleted:
        return f"deleted, gone on {found.delete_date}"
    if found.in_use:
        return f"in use by {(found.reservation_id or '')[:8]}"
    return "backing up" if found.is_backing_up else found.status or "available"
