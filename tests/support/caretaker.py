"""Who leaves a stack that tests share to the next one: nothing runs or waits, every GPU is free, all is well."""

import time
from functools import cache
from typing import Any

import httpx

from tests.support.load import FLEET_GPUS
from tests.support.stack import OPERATORS, LocalStack, log_in

_SECONDS = 90.0
_OPEN_JOBS = "/v1/jobs?user=*&status=pending,queued,preparing,active&limit=500"


class Caretaker:
    """An operator of a stack.

    Args:
        stack: With the demo fleet; `operator` is an operator of it.
    """

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack
        self._client = httpx.Client(base_url=stack.url, timeout=30, trust_env=False)

    def leave_nothing(self) -> None:
        """Cancel what is open, whosever it is, and wait until the stack is at rest."""
        deadline = time.monotonic() + _SECONDS
        while wrong := self._disquiet():
            assert time.monotonic() < deadline, f"after {_SECONDS} s: {wrong}"
            time.sleep(0.05)

    def _disquiet(self) -> str:
        """What is not as it was, if anything; jobs that are open are cancelled."""
        try:
            if jobs := self._get(_OPEN_JOBS)["jobs"]:
                for job in jobs:
                    self._client.post(f"/v1/jobs/{job['job_id']}/cancel")
                return f"open jobs: {jobs}"
            kinds = self._get("/v1/gpu/availability")["availability"].values()
            if sum(kind["available"] for kind in kinds) != FLEET_GPUS or any(kind["queued"] for kind in kinds):
                return f"GPUs: {list(kinds)}"
            self._get("/health")
        except (httpx.HTTPError, AssertionError) as error:
            return repr(error)
        return ""

    def _get(self, path: str) -> Any:
        answer = self._client.get(path)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._client.headers["Authorization"] = f"Bearer {log_in(self._stack, 'operator')}"
            answer = self._client.get(path)
        return answer.raise_for_status().json()


@cache
def caretaker_of(stack: LocalStack) -> Caretaker | None:
    """The stack's one; None: it is not the one that all tests share, and has no operators."""
    return Caretaker(stack) if stack.environment.get("GPUDEV_OPERATORS") == OPERATORS else None
