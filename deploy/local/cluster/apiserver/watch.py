"""Watches: a resumable stream of changes to the objects that a selection matches."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import msgspec

from deploy.local.cluster.apiserver.listing import Selection, integer
from deploy.local.cluster.apiserver.representation import Representation
from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.registry import Target
from deploy.local.cluster.registry.store import Change, Record, Store

_BACKLOG = 10_000  # a client this many changes behind is cut off and has to start anew
_BOOKMARK_SECONDS = 60.0
_LAST_BOOKMARK_SECONDS = 2.0  # before the time-out, as in the API server's watch cache
_DEFAULT_TIMEOUT_SECONDS = 1800


class Watches:
    """Opens watches on the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def open(self, target: Target, query: dict[str, str], representation: Representation) -> AsyncIterator[bytes]:
        """The lines of a watch; raises BadRequest. A revision that is too old is an ERROR event in the stream."""
        selection = Selection(target, query)
        asked = integer(query, "resourceVersion") or 0
        if asked and asked < self._store.oldest_revision:
            detail = f"too old resource version: {asked} ({self._store.oldest_revision})"
            return _single(_error_line(errors.expired(detail)))
        watch = _Watch(self._store, target, selection, representation, query)
        await watch.begin(asked)
        return watch.lines()


class _Watch:
    def __init__(
        self,
        store: Store,
        target: Target,
        selection: Selection,
        representation: Representation,
        query: dict[str, str],
    ) -> None:
        self._store, self._target, self._selection = store, target, selection
        self._representation = representation
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._start = self._revision = 0
        self._first: list[bytes] = []
        self._bookmarks = query.get("allowWatchBookmarks") in {"true", "1"}
        self._initial_events = query.get("sendInitialEvents") in {"true", "1"}
        seconds = integer(query, "timeoutSeconds")
        self._end = time.monotonic() + (seconds or _DEFAULT_TIMEOUT_SECONDS * random.uniform(1, 2))  # noqa: S311

    async def begin(self, asked: int) -> None:
        """Fixes where the watch starts: at the revision asked for, or with the state as it is now (revision 0)."""
        if asked and not self._initial_events:
            self._start = self._revision = asked
            return
        self._start = self._revision = self._store.revision
        records = self._store.records(self._target.resource.plural, self._target.namespace)
        self._first = [self._representation.event("ADDED", r) for r in records if self._selection.matches(r)]
        await self._store.durable()
        if self._initial_events and self._bookmarks:
            self._first.append(self._bookmark({"k8s.io/initial-events-end": "true"}))

    async def lines(self) -> AsyncIterator[bytes]:
        """Yields until the time-out, or until the client lags too far behind."""
        # no await between these two: what is not in the history comes to the subscriber
        cancel = self._store.subscribe(self._on_change)
        try:
            for change in self._store.changes_since(self._start):
                self._on_change(change)
            for line in self._first:
                yield line
            self._first = []
            async for line in self._live():
                yield line
        finally:
            cancel()

    async def _live(self) -> AsyncIterator[bytes]:
        next_bookmark = self._next_bookmark()
        while (current := time.monotonic()) < self._end:
            if current >= next_bookmark:
                yield self._bookmark()
                next_bookmark = self._next_bookmark()
            try:
                async with asyncio.timeout(min(self._end, next_bookmark) - current):
                    change = await self._queue.get()
            except TimeoutError:
                continue
            if change is None:
                return
            line = self._translated(change)
            self._revision = change.revision
            if line is not None:
                yield line

    def _next_bookmark(self) -> float:
        """When the next bookmark is due; infinity for never."""
        if not self._bookmarks:
            return float("inf")
        current, last = time.monotonic(), self._end - _LAST_BOOKMARK_SECONDS
        periodic = current + _BOOKMARK_SECONDS
        return min(periodic, last) if last > current else periodic

    def _on_change(self, change: Change) -> None:
        namespace, backlog = self._target.namespace, self._queue.qsize()
        if change.revision <= self._start or change.resource != self._target.resource.plural:
            return
        if namespace and change.record.key[1] != namespace:
            return
        if backlog <= _BACKLOG:
            self._queue.put_nowait(change if backlog < _BACKLOG else None)

    def _translated(self, change: Change) -> bytes | None:
        """The line for a change: an object that begins or ceases to match is ADDED or DELETED to this watch."""
        selected = self._selection.matches
        before = change.previous is not None and selected(change.previous)
        after = change.type != "DELETED" and selected(change.record)
        match before, after:
            case False, True:
                kind, record = "ADDED", change.record
            case True, True:
                kind, record = "MODIFIED", change.record
            case True, False:
                kind, record = "DELETED", self._last_selected(change)
            case _:
                return None
        return self._representation.event(kind, record)

    @staticmethod
    def _last_selected(change: Change) -> Record:
        # the last state that matched, under the revision of the change that ended the match
        if change.type == "DELETED" or change.previous is None:
            return change.record
        value: Object = msgspec.json.decode(change.previous.raw)
        value["metadata"]["resourceVersion"] = str(change.revision)
        return Record(change.record.key, change.revision, msgspec.json.encode(value), value)

    def _bookmark(self, annotations: Object | None = None) -> bytes:
        resource = self._target.resource
        metadata: Object = {"resourceVersion": str(self._bookmark_revision()), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        value = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        return msgspec.json.encode({"type": "BOOKMARK", "object": value}) + b"\n"

    def _bookmark_revision(self) -> int:
        # with nothing queued, everything durable has been seen, other resources' changes included
        return max(self._revision, self._store.durable_revision) if self._queue.empty() else self._revision


async def _single(line: bytes) -> AsyncIterator[bytes]:
    yield line


def _error_line(error: errors.StatusError) -> bytes:
    return msgspec.json.encode({"type": "ERROR", "object": error.status}) + b"\n"
