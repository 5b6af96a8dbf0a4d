"""What an accepted request is answered with."""

from uuid import UUID

import msgspec

from shared.contracts.audit import AuditObject
from shared.contracts.jobs import JobStatus


class Accepted(msgspec.Struct, frozen=True):
    """A request that was taken."""

    job_id: UUID
    status: JobStatus
    message_id: int
    """By which users can follow it: the same number is in its event."""

    def audited(self) -> list[AuditObject]:
        """What the request was about."""
        return [AuditObject("job", str(self.job_id))]


class AcceptedBatch(msgspec.Struct, frozen=True):
    """Submissions that were taken together."""

    jobs: list[Accepted]
    """In their order."""
