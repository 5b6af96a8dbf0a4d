"""Pods with the tools, on the simulator, whose program does as it is told; and the page of keys they are given."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from uuid import UUID

import msgspec
from aiohttp import web

from deploy.local.tools.image import IMAGE
from tests.support.harness import eventually
from tests.support.jobs import JobsWorld
from tests.support.servers import ClusterSimulator

_PROGRAM = """#!/bin/sh
run=$GPUDEV_ROOT/gpudev/run
echo "$*" >> "$run/calls"
case $1 in ready) exec "$0-twin" "$@" ;; esac
while grep -qs hold "$run/fault-$1-$2"; do echo held >> "$run/held"; sleep 0.1; done
case $(cat "$run/fault-$1" "$run/fault-$1-$2" 2>/dev/null) in
fail) echo "the disk is full" >&2; exit 1 ;;
babble)
    read -r length; frame=$(head -c "$length"); token=$(expr "$frame" : '.*"token":"\\([^"]*\\)')
    printf '\\033[2J\\007\\302\\205%0270d%s%05000d\\n' 0 "$token" 0 >&2; exit 1 ;;
hang) echo hung >> "$run/hung"; exec sleep 600 ;;
esac
wish() {
    read -r length; frame=$(head -c "$length"); number=$(expr "$frame" : '.*"wish":\\([0-9]*\\)')
    exec 9>> "$run/lock"; flock 9
    [ "$number" -ge "$(cat "$run/wish" 2>/dev/null || echo 0)" ] || { echo "another came" >&2; exit 1; }
    echo "$number" > "$run/wish"
}
case "$*" in
"jupyter start")
    wish
    printf %s "$frame" | sed 's/,"wish":[0-9]*//' > "$run/jupyter.new"
    mv "$run/jupyter.new" "$run/jupyter" ;;
"jupyter stop") wish; rm -f "$run/jupyter" ;;
*) exec "$0-twin" "$@" ;;
esac
"""
"""Keys are the twin's; JupyterLab is played, since it takes seconds to start: what counts here is who asks for it."""


@dataclass
class Tools:
    """The tools in one pod, from outside."""

    directory: Path

    @property
    def authorized_keys(self) -> str:
        """What opens the pod."""
        return (self.directory / "etc/authorized_keys").read_text()

    @property
    def jupyter(self) -> str | None:
        """What JupyterLab was started with; None when it is off."""
        return _text(self.directory / "run/jupyter")

    @property
    def hung(self) -> bool:
        """Whether a call hangs or did."""
        return _text(self.directory / "run/hung") is not None

    @property
    def holds(self) -> bool:
        """Whether a call is held, or was."""
        return _text(self.directory / "run/held") is not None

    def calls(self, name: str) -> int:
        """How often the program was called like this."""
        return (_text(self.directory / "run/calls") or "").splitlines().count(name)

    def let(self, call: str, fault: str | None) -> None:
        """Have `keys`, `jupyter` or `jupyter start` `fail`, `babble`, `hang` or `hold` until told otherwise.

        `babble`: fail with a long line of strange bytes and the token.
        """
        (self.directory / f"run/fault-{call.replace(' ', '-')}").write_text(fault or "")

    @classmethod
    async def take_over_early(cls, world: JobsWorld, simulator: ClusterSimulator, job_id: UUID, fault: str) -> "Tools":
        """As soon as the pod has them, before anybody asks for JupyterLab, whose start has this fault."""

        async def there() -> "Tools | None":
            uid = (await world.row(job_id))["pod_uid"]
            directory = simulator.volume(uid, "tools") if uid else None
            return cls(directory) if directory and (directory / "bin/gpudev").exists() else None

        tools = cast("Tools", await eventually(there, "the tools are in the pod"))
        (tools.directory / "run").mkdir(exist_ok=True)
        tools.let("jupyter start", fault)
        return cls.take_over(simulator, (await world.row(job_id))["pod_uid"])

    @classmethod
    def take_over(cls, simulator: ClusterSimulator, pod_uid: str) -> "Tools":
        """Put the obedient program in the place of the pod's own."""
        tools = cls(simulator.volume(pod_uid, "tools"))
        program = tools.directory / "bin/gpudev"
        (tools.directory / "bin/gpudev-twin").hardlink_to(program)
        obedient = tools.directory / "bin/obedient"
        obedient.write_text(_PROGRAM)
        obedient.chmod(0o755)
        obedient.replace(program)
        return tools


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


@dataclass
class Keys:
    """GitHub: the pages of keys, each with its status."""

    pages: dict[str, str] = field(default_factory=dict)
    status: int = 200
    """Of all pages there are."""
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Serve one page. Its name's case does not matter, as on GitHub."""
        name = request.match_info["name"].lower()
        self.asked.append(name)
        if name not in self.pages and self.status == web.HTTPOk.status_code:
            return web.Response(status=404)
        return web.Response(text=self.pages.get(name, ""), status=self.status)


@asynccontextmanager
async def key_pages(world: JobsWorld, **pages: str) -> AsyncIterator[Keys]:
    """A stand-in for GitHub, which the world's services then ask."""
    keys = Keys(dict(pages))
    app = web.Application()
    app.router.add_get("/{name}.keys", keys.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    world.settings = msgspec.structs.replace(
        world.settings, github_url=f"http://127.0.0.1:{runner.addresses[0][1]}", tools_image=IMAGE
    )
    try:
        yield keys
    finally:
        await runner.cleanup()
