"""Logs of pods, as streams."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from services.jobs.adapters.kubernetes.objects import NOT_FOUND, Objects
from services.jobs.domain.pod import MAIN_CONTAINER
from shared.kubernetes import CALL_SECONDS, Status, StatusError

_IDLE_SECONDS = 30.0
"""A container may be silent for long: a stream that is, is opened again, since its connection may have died."""
_FIRST_TIME, _LAST_TIME = datetime(1971, 1, 1, tzinfo=UTC), datetime(2261, 1, 1, tzinfo=UTC)
_BAD_REQUEST = 400


class LogNotThere(Exception):
    """There is no such pod, or its container has not started."""


class Logs(Objects):
    """Logs of the jobs' pods, on connections of their own."""

    @asynccontextmanager
    async def open_log(
        self, name: str, *, follow: bool = False, tail: int | None = None, since: datetime | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The log of a pod's main container with the time of each line, piece by piece as it comes.

        No more is read than is taken; leaving the block closes the connection.

        Args:
            name: The pod's.
            follow: Go on until the container ends. Given up when nothing comes for 30 s, else for 4 s.
            tail: The last lines only; None: all.
            since: To the second: a little more may come. None: from the beginning.

        Raises:
            LogNotThere: No pod, or no container yet.
            ClusterUnavailable: No answer, or the stream broke; also while it is read.
        """
        query = {"container": MAIN_CONTAINER, "timestamps": "true", "follow": str(follow).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
        if since is not None:
            query["sinceTime"] = f"{_within_kubernetes(since):%Y-%m-%dT%H:%M:%SZ}"
        path, idle_seconds = self._path("pods", name, "log"), _IDLE_SECONDS if follow else CALL_SECONDS
        try:
            async with self._log_api.stream(path, query, idle_seconds=idle_seconds) as chunks:
                yield chunks
        except StatusError as error:
            if _says_no_log(error.status):
                raise LogNotThere(error.status.message) from error
            raise


def _says_no_log(status: Status) -> bool:
    """No pod; or the kubelet says that its container has not started, and not that the request is wrong."""
    waiting = status.code == _BAD_REQUEST and "container" in status.message.lower()
    return status.code == NOT_FOUND or waiting


def _within_kubernetes(since: datetime) -> datetime:
    """A time that Kubernetes can read: there are no logs outside of them."""
    return min(max(since, _FIRST_TIME), _LAST_TIME).astimezone(UTC)
