"""The store: every object, one revision counter, and a window of past changes for watches.

Reads and writes happen in memory, in the event loop; a thread commits them to SQLite in batches. `durable()` waits
for the commit, so whoever answers a client or starts a process awaits it first. Subscribers hear of a change only
after it is durable: nobody ever acts on a write that a crash could take back.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from deploy.local.cluster.machinery.objects import Object, name_of, namespace_of

_HOT_CHANGES = 256  # this many superseded records stay decoded; watchers that lag further decode again

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT, namespace TEXT, name TEXT, revision INTEGER, value BLOB, PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    revision INTEGER PRIMARY KEY, resource TEXT, type TEXT, value BLOB, previous BLOB
);
"""

Key = tuple[str, str, str]
"""Resource (plural), namespace (empty when cluster-scoped), name."""


class Record:
    """One version of one object: its JSON text and, on demand, its value, which nobody may change."""

    __slots__ = ("_value", "key", "raw", "revision")

    def __init__(self, key: Key, revision: int, raw: bytes, value: Object | None = None) -> None:
        self.key, self.revision, self.raw, self._value = key, revision, raw, value

    @property
    def value(self) -> Object:
        """The decoded object; read-only by convention, copy before changing."""
        if self._value is None:
            self._value = msgspec.json.decode(self.raw)
        result: Object = self._value
        return result

    def forget(self) -> None:
        """Drops the decoded value to save memory; the text stays."""
        self._value = None


class Change(msgspec.Struct, frozen=True):
    """One write. A deletion's record is the object's last state under the deletion's own revision."""

    type: str
    record: Record
    previous: Record | None

    @property
    def revision(self) -> int:
        """The store's revision that this change made."""
        return self.record.revision

    @property
    def resource(self) -> str:
        """The plural resource name."""
        return self.record.key[0]


Subscriber = Callable[[Change], None]


class Store:
    """Objects by key, kept over crashes; see the module's docstring for the guarantees."""

    def __init__(self, path: Path, *, window: int) -> None:
        self.revision = 0
        """The latest revision, maybe not yet durable."""
        self.durable_revision = 0
        self._window = window
        self._objects: dict[str, dict[tuple[str, str], Record]] = {}
        self._history: deque[Change] = deque()
        self._pending: list[Change] = []
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._subscribers: list[Subscriber] = []
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._flush: asyncio.Task[None] | None = None
        self.failure: asyncio.Future[None] | None = None
        """Set by the owner; gets the exception when a commit fails, after which nothing is answered any more."""
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._load()

    @property
    def oldest_revision(self) -> int:
        """Changes after this revision are still kept."""
        return self._history[0].revision - 1 if self._history else self.revision

    def get(self, resource: str, namespace: str, name: str) -> Record | None:
        """The current record, or None."""
        return self._objects.get(resource, {}).get((namespace, name))

    def records(self, resource: str, namespace: str = "") -> list[Record]:
        """Current records ordered by namespace and name; of one namespace when it is given."""
        found = self._objects.get(resource, {})
        return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def values(self, resource: str, namespace: str = "") -> Iterator[Object]:
        """The current objects in no order."""
        for key, record in self._objects.get(resource, {}).items():
            if not namespace or key[0] == namespace:
                yield record.value

    def put(self, resource: str, value: Object) -> Record:
        """Writes a new version; sets `metadata.resourceVersion` in `value`, which becomes the store's own."""
        key = (resource, namespace_of(value), name_of(value))
        previous = self.get(*key)
        record = self._next(key, value)
        self._objects.setdefault(resource, {})[key[1:]] = record
        self._append(Change("MODIFIED" if previous else "ADDED", record, previous))
        return record

    def remove(self, resource: str, namespace: str, name: str) -> Record:
        """Removes an object; the record returned is its last state at the deletion's revision."""
        previous = self._objects[resource].pop((namespace, name))
        record = self._next(previous.key, msgspec.json.decode(previous.raw))
        self._append(Change("DELETED", record, previous))
        return record

    def changes_since(self, revision: int) -> list[Change]:
        """Durable changes after `revision`, in order; `revision` must not be older than `oldest_revision`."""
        return [c for c in self._history if revision < c.revision <= self.durable_revision]

    def snapshot(self, resource: str, namespace: str, revision: int) -> list[Record]:
        """The list as it was at `revision`, by undoing what came after; same bound as `changes_since`."""
        state = {record.key: record for record in self.records(resource, namespace)}
        for change in reversed(self._history):
            if change.revision <= revision:
                break
            if change.resource != resource or (namespace and change.record.key[1] != namespace):
                continue
            if change.previous is None:
                state.pop(change.record.key, None)
            else:
                state[change.record.key] = change.previous
        return [state[key] for key in sorted(state)]

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Calls `subscriber` with every change once it is durable; the result ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    async def durable(self) -> None:
        """Returns when everything written so far would survive a crash."""
        if self.durable_revision < self.revision:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((self.revision, waiter))
            await waiter

    async def close(self) -> None:
        """Commits what is pending and closes the database."""
        if self._flush is not None:
            await self._flush
        self._writer.shutdown()
        self._database.close()

    def _load(self) -> None:
        database = self._database
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(_SCHEMA)
        for resource, namespace, name, revision, raw in database.execute("SELECT * FROM objects"):
            record = Record((resource, namespace, name), revision, raw)
            self._objects.setdefault(resource, {})[namespace, name] = record
        for _, resource, kind, raw, previous in database.execute("SELECT * FROM changes ORDER BY revision"):
            self._history.append(_restored(resource, kind, raw, previous))
        if self._history:
            self.revision = self.durable_revision = self._history[-1].revision

    def _next(self, key: Key, value: Object) -> Record:
        self.revision += 1
        value["metadata"]["resourceVersion"] = str(self.revision)
        return Record(key, self.revision, msgspec.json.encode(value), value)

    def _append(self, change: Change) -> None:
        self._history.append(change)
        if len(self._history) > _HOT_CHANGES:
            self._cool(self._history[-_HOT_CHANGES])
        while len(self._history) > self._window:
            self._history.popleft()
        self._pending.append(change)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().create_task(self._commit_pending())

    @staticmethod
    def _cool(change: Change) -> None:
        if change.previous:
            change.previous.forget()
        if change.type == "DELETED":
            change.record.forget()

    async def _commit_pending(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                await loop.run_in_executor(self._writer, self._write, batch)
                self._publish(batch)
        except BaseException as error:
            if self.failure is not None and not self.failure.done():
                self.failure.set_exception(error)
            raise
        self._flush = None

    def _write(self, batch: list[Change]) -> None:
        database = self._database
        database.execute("BEGIN")
        for change in batch:
            record, previous = change.record, change.previous
            if change.type == "DELETED":
                database.execute("DELETE FROM objects WHERE (resource, namespace, name) = (?, ?, ?)", record.key)
            else:
                row = (*record.key, record.revision, record.raw)
                database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", row)
            log = (record.revision, change.resource, change.type, record.raw, previous.raw if previous else None)
            database.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?)", log)
        database.execute("DELETE FROM changes WHERE revision <= ?", (batch[-1].revision - self._window,))
        database.execute("COMMIT")

    def _publish(self, batch: list[Change]) -> None:
        self.durable_revision = batch[-1].revision
        while self._waiters and self._waiters[0][0] <= self.durable_revision:
            waiter = self._waiters.popleft()[1]
            if not waiter.done():
                waiter.set_result(None)
        for change in batch:
            for subscriber in list(self._subscribers):
                subscriber(change)


def _restored(resource: str, kind: str, raw: bytes, previous: bytes | None) -> Change:
    metadata = msgspec.json.decode(raw)["metadata"]
    key = (resource, metadata.get("namespace", ""), metadata["name"])
    record = Record(key, int(metadata["resourceVersion"]), raw)
    return Change(kind, record, Record(key, 0, previous) if previous else None)
