"""A list of jobs: what is asked for, and which versions of jobs it holds."""

from uuid import UUID

import msgspec

from shared.contracts.jobs import JobStatus

_ID_BYTES = 16


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a user's jobs, newest first."""

    statuses: list[JobStatus] | None = None
    """None: all."""
    limit: int = 50
    offset: int = 0


class JobVersion(msgspec.Struct, frozen=True, gc=False):
    """A job as it was after one of its changes, and no other."""

    key: bytes
    """Begins with the bytes of the job's id."""

    @property
    def of(self) -> bytes:
        """Of which job: the bytes of its id."""
        return self.key[:_ID_BYTES]

    @property
    def job_id(self) -> UUID:
        """Its id."""
        return UUID(bytes=self.of)


class VersionPage(msgspec.Struct, frozen=True):
    """A page of a list."""

    versions: list[JobVersion]
    total: int
    """Of all pages, from the same snapshot."""
