"""Faults of the API server on request: slow, refusing, silent, or gone before it has answered."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import msgspec

from deploy.local.cluster.apiserver.http import Request
from deploy.local.cluster.machinery import errors

_REASONS = {
    403: "Forbidden",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What happens to matching requests; the first fault that matches one is the one that counts."""

    path: str = ""
    """Regular expression that is found somewhere in the path."""
    methods: list[str] | None = None
    """None: any."""
    watch: bool | None = None
    """True: watches only; False: anything else only; None: both."""
    times: int | None = None
    """How many requests it happens to; None: to all."""
    seconds: float = 0.0
    """How long the request waits first."""
    hang: bool = False
    """Nothing is answered, and watches that run are silent, until the fault is taken away."""
    code: int | None = None
    """Answered with this in place of an effect."""
    lose_answer: bool = False
    """The request takes effect, and the connection ends instead of an answer."""

    def covers(self, request: Request) -> bool:
        """Whether it is meant for such a request."""
        watches = request.query.get("watch") in {"true", "1"}
        return (
            self.watch in {None, watches}
            and (self.methods is None or request.method in self.methods)
            and re.search(self.path, request.path) is not None
        )


class Faults:
    """The faults that are wanted now."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._changed = asyncio.Event()

    @property
    def wanted(self) -> list[Fault]:
        """With the `times` that are left."""
        return self._faults

    def replace(self, faults: list[Fault]) -> None:
        """Have these and no others; what hangs goes on unless it hangs again."""
        self._faults = faults
        self._changed.set()
        self._changed = asyncio.Event()

    async def meet(self, request: Request) -> bool:
        """Let happen what is to happen before the request; whether its answer is to be lost. Raises StatusError."""
        fault = self._find(request)
        if fault is None:
            return False
        if fault.times is not None:
            fault.times -= 1
        await asyncio.sleep(fault.seconds)
        while fault.hang and any(fault is wanted for wanted in self._faults):
            await self._changed.wait()
        if fault.code is not None:
            raise errors.StatusError(fault.code, _REASONS.get(fault.code, "Unknown"), "a fault that was asked for")
        return fault.lose_answer

    async def silenced(self, request: Request, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The lines of a watch, held back while it is to hang."""
        async with contextlib.aclosing(lines):  # type: ignore[type-var]  # every stream here is a generator
            async for line in lines:
                while any(fault.hang and fault.covers(request) for fault in self._faults):
                    await self._changed.wait()
                yield line

    def _find(self, request: Request) -> Fault | None:
        return next((fault for fault in self._faults if fault.times != 0 and fault.covers(request)), None)
