"""Logging in and out, keys, and what the cluster has."""

import os
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from gpudev import Client, errors
from gpudev.cli.browser import open_page
from gpudev.cli.ending import CommandError, ExitCode
from gpudev.cli.keyfile import KeyFile, StoredKey, config_folder, open_client
from gpudev.cli.output import AsJson, print_fields, print_json, print_line, print_table, tell

keys = typer.Typer(help="Your API keys.", invoke_without_command=True)
_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def login(
    url: Annotated[
        str | None,
        typer.Option(envvar=["GPUDEV_URL", "API_URL"], help="Where GPU Dev is; by default where you were logged in."),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="AWS profile, SSO ones included.")] = None,
    in_keyring: Annotated[
        bool | None,
        typer.Option("--keyring/--no-keyring", help="Where the key is kept; else where it was, at first in a file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Exchange your AWS credentials, as boto3 finds them, for a key, which is kept on this machine and renewed."""
    file = KeyFile(config_folder())
    where = url or _earlier_url(file)
    if where is None:
        raise CommandError("It is not known where GPU Dev is", step="Say it: `gpudev login --url URL`.")
    if not where.startswith(("http://", "https://")):
        raise CommandError(f"{where!r} is no URL", step="It begins with https:// (or http://, of a local stack).")
    given = _credentials(profile)
    if in_keyring is not None:
        file.move(to_keyring=in_keyring)
    with Client(where) as client:
        new = client.aws_login(
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=given.get("AWS_SESSION_TOKEN"),
        )
    _print_identity(file.keep(where, new), as_json=as_json)


def _earlier_url(file: KeyFile) -> str | None:
    """Of the last log-in; a key that cannot be read is no reason not to log in again."""
    try:
        earlier = file.load()
    except CommandError:
        return None
    return earlier.url if earlier else None


def logout(as_json: AsJson = False) -> None:
    """Revoke the key and remove it from this machine."""
    file = KeyFile(config_folder())
    key = file.load()
    if key is not None:
        file.remove()
        try:
            with Client(key.url, key.api_key, retry_seconds=5) as client:
                client.revoke_key(key.key_prefix)
        except errors.Unauthenticated:
            pass  # it has ended by itself
        except errors.GpuDevError as error:
            tell(f"gpudev: the key was removed here, but not revoked: {error.detail}")
    if as_json:
        print_json({"logged_out": key is not None})
    else:
        print_line("Logged out." if key is not None else "You were not logged in.")


def whoami(as_json: AsJson = False) -> None:
    """Who is logged in, where, and until when."""
    with open_client() as client:
        client.list_keys(limit=1)  # whether the key is good is known there only
    _print_identity(KeyFile(config_folder()).current(), as_json=as_json)


def console(
    show: Annotated[bool, typer.Option("--show", help="Print the link instead of opening it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Open the console in your browser, logged in, by a link that is good for 60 s and for once."""
    with open_client() as client:
        code = client.create_console_code()
        link = client.url + code.path
    if as_json:
        print_json({"url": link, "expires_at": code.expires_at})
    elif show or not open_page(link):
        print_line(link)
        tell("The link is good for 60 s, and for once.")
    else:
        print_line(f"The console opens in your browser: {client.url}/console")


@keys.callback()
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List your keys that are alive; `keys revoke` ends one."""
    if context.invoked_subcommand is not None:
        return
    with open_client() as client:
        found = list(client.iter_keys())
    if as_json:
        print_json(found)
        return
    rows = [
        (key.key_prefix + (" (this one)" if key.current else ""), key.created_at, key.expires_at, key.last_used)
        for key in found
    ]
    print_table(["KEY", "CREATED", "EXPIRES", "LAST USED"], rows)


@keys.command("revoke")
def revoke(
    key_prefix: Annotated[str, typer.Argument(help="Its beginning, as `gpudev keys` shows it.")],
    as_json: AsJson = False,
) -> None:
    """End a key at once."""
    with open_client() as client:
        answer = client.revoke_key(key_prefix)
    if as_json:
        print_json(answer)
    else:
        print_line(f"{answer.key_prefix} is revoked.")


def avail(
    nodes: Annotated[bool, typer.Option("--nodes", help="Show each node.")] = False, as_json: AsJson = False
) -> None:
    """What GPUs there are, and how many are free."""
    with open_client() as client:
        answer = client.gpu_availability()
    types = list(answer.availability.values())
    if as_json:
        print_json(answer)
    elif nodes:
        rows = [
            (one.gpu_type, node.name, node.total, node.total - node.in_use, node.ready and node.schedulable)
            for one in types
            for node in one.nodes
        ]
        print_table(["GPU", "NODE", "TOTAL", "FREE", "READY"], rows)
    else:
        heads = ["GPU", "TOTAL", "FREE", "IN USE", "WAITED FOR", "LARGEST JOB NOW"]
        print_table(heads, [(t.gpu_type, t.total, t.available, t.in_use, t.queued, t.max_placeable) for t in types])


def status(as_json: AsJson = False) -> None:
    """How busy the cluster is, and whether GPU Dev is healthy."""
    with open_client() as client:
        cluster, health = client.cluster_status(), client.health()
    if as_json:
        print_json({"cluster": cluster, "health": health})
        return
    faults = [f"{name}: {fault}" for name, service in health.services.items() for fault in service.faults]
    print_fields(
        [
            ("health", health.status),
            ("faults", faults),
            ("GPUs", f"{cluster.available_gpus} of {cluster.total_gpus} free, {cluster.queued_gpus} waited for"),
            ("active jobs", cluster.active_reservations),
            ("preparing jobs", cluster.preparing_reservations),
            ("waiting jobs", cluster.queued_reservations + cluster.pending_reservations),
            ("as of", cluster.as_of),
        ]
    )


def usage(
    first: Annotated[
        str | None, typer.Option("--from", metavar="DAY", help="First day, such as 2026-01-20; by default 30 in all.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last day; by default today.")] = None,
    user: Annotated[str | None, typer.Option(help="For operators: somebody's name, or '*' for everybody.")] = None,
    as_json: AsJson = False,
) -> None:
    """GPU hours by day, in UTC, and GPU type."""
    with open_client() as client:
        answer = client.get_usage(first=first, last=last, user=user)
    if as_json:
        print_json(answer)
        return
    rows = [(str(row.date), row.username, row.gpu_type, f"{row.gpu_hours:.2f}") for row in answer.rows]
    total = sum(row.gpu_hours for row in answer.rows)
    print_table(["DAY", "USER", "GPU", "GPU HOURS"], [*rows, ("total", "", "", f"{total:.2f}")])


def audit(
    *,
    user: Annotated[str | None, typer.Option(help="Only what this user did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as cancel_job.")] = None,
    about: Annotated[
        str | None, typer.Option("--object", help="Only about this: an id, a disk's name, a key's prefix.")
    ] = None,
    since: Annotated[str | None, typer.Option(metavar="MOMENT", help="Such as 2026-01-20T18:30:00Z.")] = None,
    until: Annotated[str | None, typer.Option(metavar="MOMENT", help="Only before it.")] = None,
    most: Annotated[int, typer.Option("--limit", "-n", min=1, help="Entries at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """For operators: who did what, newest first."""
    with open_client() as client:
        entries = list(
            islice(client.iter_audit(user=user, action=action, object=about, since=since, until=until), most)
        )
    if as_json:
        print_json(entries)
        return
    rows = [
        (
            entry.at,
            entry.username or "gpudev-admin",
            entry.action,
            f"{entry.object_kind} {entry.object_id}" + (f" ({entry.object_name})" if entry.object_name else ""),
            entry.address,
        )
        for entry in entries
    ]
    print_table(["TIME", "WHO", "DID", "TO", "FROM"], rows)


def _print_identity(key: StoredKey, *, as_json: bool) -> None:
    told: dict[str, Any] = {
        "username": key.username,
        "url": key.url,
        "key_prefix": key.key_prefix,
        "expires_at": key.expires_at,
    }
    if as_json:
        print_json(told)
        return
    until = "log in again then" if key.final else "renewed by itself while you use it"
    print_fields([("user", key.username), ("at", key.url), ("key", key.key_prefix), ("good until", key.expires_at)])
    print_line(f"The key is {until}.")


def _credentials(profile: str | None) -> Mapping[str, str]:
    """AWS credentials.

    Raises:
        CommandError: There are none.
    """
    try:
        import boto3  # noqa: PLC0415 - an extra
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - likewise
    except ImportError:
        if profile is None and os.environ.get("AWS_ACCESS_KEY_ID"):
            return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        raise CommandError(
            "boto3, which finds AWS credentials, is not installed",
            step="`pip install boto3`, or export AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.",
        ) from None
    step = "`aws sso login` or your organisation's way to AWS credentials, then `gpudev login [--profile NAME]`."
    try:
        found = boto3.Session(profile_name=profile).get_credentials()
        frozen = found.get_frozen_credentials() if found is not None else None
    except BotoCoreError as error:
        raise CommandError(f"AWS credentials: {error}", ExitCode.NOT_LOGGED_IN, step) from None
    if frozen is None:
        raise CommandError("There are no AWS credentials", ExitCode.NOT_LOGGED_IN, step)
    values = (frozen.access_key, frozen.secret_key, frozen.token)
    return {name: value for name, value in zip(_ENVIRONMENT, values, strict=True) if value}
