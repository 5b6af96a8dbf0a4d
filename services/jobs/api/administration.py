"""The jobs service's commands of `gpudev-admin`."""

import asyncio
from argparse import Namespace
from collections.abc import Sequence

from services.jobs.adapters.kubernetes import KINDS, Cluster
from services.jobs.context import Context
from services.jobs.domain.pod import Meta
from services.jobs.operations.orphans import delete_orphan, find_orphans
from services.jobs.operations.read import OpenJob, list_open_jobs
from shared.admin import Command, CommandFailed
from shared.contracts.labels import job_id_of

_LOOK_SECONDS = 0.5


def commands(context: Context, cluster: Cluster) -> Sequence[Command]:
    """Seeing a user's jobs and their end, and what no job has."""

    async def show(given: Namespace) -> str:
        open_jobs = await list_open_jobs(user_id=given.user_id, context=context)
        if not given.wait:
            return "\n".join(map(_line_of, open_jobs)) or f"User {given.user_id} has no open job"
        ends_at = asyncio.get_running_loop().time() + given.wait
        while open_jobs and asyncio.get_running_loop().time() < ends_at:
            await asyncio.sleep(_LOOK_SECONDS)
            open_jobs = await list_open_jobs(user_id=given.user_id, context=context)
        if open_jobs:
            raise CommandFailed("\n".join([f"Still open after {given.wait:g} s:", *map(_line_of, open_jobs)]))
        return f"User {given.user_id} has no open job"

    async def show_orphans(_: Namespace) -> str:
        lines = [_line_of_orphan(kind, meta) for kind in KINDS for meta in await find_orphans(context, cluster, kind)]
        return "\n".join(lines) or _NO_ORPHANS

    async def sweep(_: Namespace) -> str:
        lines = []
        for kind in KINDS:
            for meta in await find_orphans(context, cluster, kind):
                deleted = await delete_orphan(context, cluster, kind, meta)
                lines.append(f"{_line_of_orphan(kind, meta)}  {'deleted' if deleted else 'left'}")
        return "\n".join(lines) or _NO_ORPHANS

    return (
        Command(name="list-orphans", summary="show objects in the cluster that no job has", run=show_orphans),
        Command(
            name="sweep",
            summary="delete objects in the cluster that no job has, as the service does by itself",
            run=sweep,
        ),
        Command(
            name="list-jobs",
            summary="show a user's jobs that wait, run, or have not given everything back yet",
            run=show,
            arguments={
                "user_id": {"type": int, "metavar": "USER_ID", "help": "as `gpudev-admin auth find-user` shows it"},
                "--wait": {
                    "type": float,
                    "metavar": "SECONDS",
                    "help": "wait so long until there is none; exit code 1 if there still is one then",
                },
            },
        ),
    )


_NO_ORPHANS = "Every object in the cluster has its job"


def _line_of_orphan(kind: str, meta: Meta) -> str:
    return f"{kind}  {meta.name}  job {job_id_of(meta.labels)}"


def _line_of(job: OpenJob) -> str:
    where = f" on {job.node}" if job.node else ""
    reason = f"  {job.status_reason}" if job.status_reason else ""
    return f"{job.id}  {job.status}  {job.gpu_count} {job.gpu_type}{where}{reason}"
