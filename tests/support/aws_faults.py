"""Faults of AWS: an HTTP proxy before moto that answers some calls itself, and loses the answers of others."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Protocol
from urllib.parse import parse_qs

import aiohttp
from aiohttp import web

from tests.support.harness import eventually

Form = dict[str, list[str]]
"""A call's parameters."""


_NOTHING = "<{0}Response><snapshotSet/><volumeSet/></{0}Response>"


class Loss(Enum):
    """How an answer is lost."""

    BREAK = "the connection breaks"
    LATE = "nobody waits for it any more"


class AwsFaults(Protocol):
    """What fails between the service and AWS."""

    def answer(self, form: Form) -> web.Response | None:
        """What is answered in AWS' stead; None: AWS is asked."""

    def loses_answer(self, form: Form) -> Loss | None:
        """AWS does it, and its answer is lost; None: it comes."""


class Outage:
    """AWS is not itself, while `on`.

    Args:
        kind: `down`: connections break, without effect. `throttled`: nothing is taken. `slow`: what is asked is done,
            and its answer comes later than anybody waits. `unseen`: what is made is made, but the answer is lost, and
            nothing of it is to be seen yet. `unknown`: calls that name a volume or a snapshot to make something of it
            are told that there is none.
        only: The one action that meets it; None: all do.
    """

    def __init__(self, kind: str, *, only: str | None = None) -> None:
        self.kind = kind
        self.on = False
        self._only = only
        self.calls = 0
        """That it met."""

    def answer(self, form: Form) -> web.Response | None:
        """What is answered in AWS' stead; None: AWS is asked."""
        if not self._meets(form):
            return None
        self.calls += 1
        (action,) = form["Action"]
        match self.kind:
            case "down":
                raise ConnectionResetError
            case "throttled":
                return _error(503, "RequestLimitExceeded")
            case "unseen" if action == "CreateTags" or "SnapshotId.1" in form:
                return _error(400, "InvalidSnapshot.NotFound")
            case "unseen" if action.startswith("Describe"):
                return web.Response(text=_NOTHING.format(action), content_type="text/xml")
            case "unknown" if action == "CreateSnapshot" or (action == "CreateVolume" and "SnapshotId" in form):
                return _error(400, f"Invalid{'Volume' if action == 'CreateSnapshot' else 'Snapshot'}.NotFound")
        return None

    def loses_answer(self, form: Form) -> Loss | None:
        """AWS does it, and its answer is lost; None: it comes."""
        if not self._meets(form):
            return None
        if self.kind == "slow":
            return Loss.LATE
        made = form["Action"][0].startswith("Create")
        return Loss.BREAK if made and self.kind == "unseen" else None

    def _meets(self, form: Form) -> bool:
        return self.on and self._only in {None, *form["Action"]}


class TagFaults:
    """Refuses to tag some resources, and throttles every third CreateTags call."""

    def __init__(self, refused: Iterable[str]) -> None:
        self.refused = set(refused)
        """Ids of resources that take no tag, until they are removed from here."""
        self.calls = 0
        """CreateTags calls so far."""

    def answer(self, form: Form) -> web.Response | None:
        """What is answered in AWS' stead; None: AWS is asked."""
        if form["Action"] != ["CreateTags"]:
            return None
        self.calls += 1
        if self.calls % 3 == 0:
            return _error(503, "RequestLimitExceeded")
        asked = {ids[0] for key, ids in form.items() if key.startswith("ResourceId.")}
        return _error(403, "UnauthorizedOperation") if asked & self.refused else None

    def loses_answer(self, _: Form) -> Loss | None:
        """Never."""
        return None


class CallFaults:
    """The next calls of an action are throttled, refused, or have their effect and lose their answer."""

    def __init__(self) -> None:
        self._next = ("", "", 0)
        self.refused = 0
        """Volumes and snapshots that were refused for good."""
        self.played: Counter[str] = Counter()

    def set_next(self, kind: str, action: str, times: int) -> None:
        """From now on, for so many calls.

        Args:
            kind: throttle, lose, refuse, down.
            action: EC2's name of the call; down goes for all.
            times: How many calls.
        """
        self._next = (kind, action, times)

    def clear(self) -> None:
        """No call fails any more."""
        self._next = ("", "", 0)

    def answer(self, form: Form) -> web.Response | None:
        """What is answered in AWS' stead."""
        action = form["Action"][0]
        kind, of, _ = self._next
        if kind == "down" and self._use():
            return _error(503, "Unavailable")
        if action != of or kind not in {"throttle", "refuse"} or not self._use():
            return None
        if kind == "throttle":
            return _error(503, "RequestLimitExceeded")
        if action == "CreateTags":
            return _error(403, "UnauthorizedOperation")
        self.refused += 1
        return _error(400, "VolumeLimitExceeded" if action == "CreateVolume" else "SnapshotLimitExceeded")

    def loses_answer(self, form: Form) -> Loss | None:
        """AWS does it, and its answer is lost; None: it comes."""
        kind, action, _ = self._next
        return Loss.BREAK if kind == "lose" and form["Action"] == [action] and self._use() else None

    def _use(self) -> bool:
        kind, action, times = self._next
        if times <= 0:
            return False
        self._next = (kind, action, times - 1)
        self.played[f"AWS {kind} {action}".strip()] += 1
        return True


@asynccontextmanager
async def before_aws(endpoint_url: str, faults: AwsFaults) -> AsyncIterator[str]:
    """Serve before an endpoint for the length of a block; the URL to ask instead."""
    async with aiohttp.ClientSession() as upstream:

        async def handle(request: web.Request) -> web.Response:
            body = await request.read()
            form = parse_qs(body.decode())
            try:
                told = faults.answer(form)
            except ConnectionResetError:
                return await _silence(request, Loss.BREAK)
            if told is not None:
                return told
            # with the host that the client signed
            async with upstream.post(endpoint_url, data=body, headers=request.headers) as answer:
                done = web.Response(status=answer.status, body=await answer.read(), content_type="text/xml")
            loss = faults.loses_answer(form)
            return done if loss is None else await _silence(request, loss)

        app = web.Application(client_max_size=1 << 22)
        app.router.add_post("/", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def _silence(request: web.Request, loss: Loss) -> web.Response:
    """Give no answer."""
    transport = request.transport
    if transport is not None:
        if loss is Loss.LATE:
            await eventually(transport.is_closing, "the client gives up")
        transport.abort()
    return web.Response()


def _error(status: int, code: str) -> web.Response:
    text = f"<Response><Errors><Error><Code>{code}</Code><Message>told so</Message></Error></Errors></Response>"
    return web.Response(status=status, text=text, content_type="text/xml")
