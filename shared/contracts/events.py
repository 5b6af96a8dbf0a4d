"""The envelope of every event (CloudEvents 1.0, structured JSON) and its subject on NATS.

Additive change only: readers ignore fields that they do not know.
"""

from datetime import datetime
from typing import ClassVar
from urllib.parse import quote
from uuid import UUID

import msgspec

STREAM = "GPUDEV"
SUBJECT_ROOT = "gpudev.v1"
DEAD_LETTER_ROOT = "gpudev.dead"


class EventData(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the `data` of an event; a subclass names its domain and event."""

    DOMAIN: ClassVar[str]
    EVENT: ClassVar[str]

    @property
    def entity_id(self) -> str:
        """Id of what the event is about; the last token of the subject."""
        raise NotImplementedError

    @classmethod
    def type_name(cls) -> str:
        """CloudEvents `type`."""
        return f"dev.gpudev.{cls.DOMAIN}.{cls.EVENT}.v1"

    @classmethod
    def subject_filter(cls) -> str:
        """NATS subject of this event for every entity."""
        return f"{SUBJECT_ROOT}.{cls.DOMAIN}.{cls.EVENT}.*"


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    specversion: str = "1.0"
    id: UUID
    """The same at each redelivery; also NATS's `Nats-Msg-Id`."""
    source: str
    """/gpudev/<service>"""
    type: str
    """dev.gpudev.<domain>.<event>.v1"""
    subject: str
    """Id of the entity."""
    time: datetime
    """When the change was made, UTC."""
    sequence: int
    """Version of the entity after this change; rises by one with each of its events."""
    messageid: int
    """The "message ID" of the answer that announced this change."""
    requestid: str | None = None
    """X-Request-Id of the request that caused it; None when no request did."""
    traceparent: str | msgspec.UnsetType = msgspec.UNSET
    """W3C Trace Context of what caused it (the extension "Distributed Tracing"), where the services send traces."""
    datacontenttype: str = "application/json"
    data: msgspec.Raw
    """JSON of the struct of this type."""


def subject_token(entity_id: str) -> str:
    """`entity_id` as one token of a NATS subject: separators and wildcards are percent-encoded.

    Node names hold dots; NATS would read them as levels.
    """
    return quote(entity_id, safe="").replace(".", "%2E").replace("*", "%2A").replace("~", "%7E")


def event_subject(data: EventData) -> str:
    """Subject that this event is published on."""
    return f"{SUBJECT_ROOT}.{data.DOMAIN}.{data.EVENT}.{subject_token(data.entity_id)}"
