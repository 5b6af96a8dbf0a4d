"""The disks service's commands of `gpudev-admin`."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from services.disks.context import Context
from services.disks.domain.ledger import Findings
from services.disks.operations.orphans import sweep
from shared.admin import Command


def commands(context: Context) -> Sequence[Command]:
    """Seeing and mending what differs between AWS and the tables."""
    reporting = replace(context, settings=structs.replace(context.settings, sweep="report"))
    acting = replace(context, settings=structs.replace(context.settings, sweep="act"))

    async def show(_: Namespace) -> str:
        return _text_of(await sweep(reporting))

    async def act(_: Namespace) -> str:
        return _text_of(await sweep(acting))

    return (
        Command(
            name="list-orphans",
            summary="show what differs between AWS and the tables, and change nothing",
            run=show,
        ),
        Command(
            name="sweep",
            summary="adopt what is ours and delete what is to be gone, as the service does by itself; show it all",
            run=act,
        ),
    )


def _text_of(findings: Findings) -> str:
    lines = [f"{kind}  {aws_id}" for kind, ids in findings.aws_ids().items() for aws_id in ids]
    return "\n".join(lines) or "AWS is as the tables say"
