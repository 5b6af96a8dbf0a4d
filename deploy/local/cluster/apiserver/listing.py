"""Lists: selectors, pages and the meaning of resourceVersion."""

import base64
import binascii

import msgspec

from deploy.local.cluster.apiserver.representation import Representation
from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.machinery.selectors import (
    FieldSelector,
    LabelSelector,
    parse_field_selector,
    parse_label_selector,
)
from deploy.local.cluster.registry.registry import Target
from deploy.local.cluster.registry.resources import Resource, selectable_fields
from deploy.local.cluster.registry.store import Record, Store


class _Continue(msgspec.Struct):
    """The content of a continue token: the list's revision and the last object that was sent."""

    revision: int
    namespace: str
    name: str


class Selection:
    """Both selectors of a request, and the name in its path."""

    def __init__(self, target: Target, query: dict[str, str]) -> None:
        self._resource: Resource = target.resource
        self._name = target.name
        self._labels: LabelSelector = parse_label_selector(query.get("labelSelector", ""))
        self._fields: FieldSelector = parse_field_selector(query.get("fieldSelector", ""), target.resource.selectable)

    @property
    def is_everything(self) -> bool:
        """Whether nothing is filtered out."""
        return not self._name and not self._labels.requirements and not self._fields.terms

    def matches(self, record: Record) -> bool:
        """Whether an object is selected."""
        if self.is_everything:
            return True
        if self._name and record.key[2] != self._name:
            return False
        wanted = self._fields.value_of("metadata.name")
        if wanted is not None and record.key[2] != wanted:
            return False
        labels = record.value["metadata"].get("labels") or {}
        fields = selectable_fields(self._resource, record.value) if self._fields.terms else {}
        return self._labels.matches(labels) and self._fields.matches(fields)


class Listing:
    """Reads collections from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def select(self, target: Target, query: dict[str, str]) -> list[Record]:
        """The current objects that the selectors match."""
        selection = Selection(target, query)
        return [r for r in self._store.records(target.resource.plural, target.namespace) if selection.matches(r)]

    def read(self, target: Target, query: dict[str, str], representation: Representation) -> bytes:
        """The answer to a list request; raises BadRequest, Expired or Timeout (a revision from the future)."""
        selection = Selection(target, query)
        limit = integer(query, "limit") or 0
        token = _decode_token(query["continue"]) if query.get("continue") else None
        revision, records = self._at_revision(target, query, token)
        records = [record for record in records if selection.matches(record)]
        if token is not None:
            records = [record for record in records if record.key[1:] > (token.namespace, token.name)]
        metadata: Object = {"resourceVersion": str(revision)}
        if 0 < limit < len(records):
            last = records[limit - 1].key
            metadata["continue"] = _encode_token(_Continue(revision, last[1], last[2]))
            if selection.is_everything:
                metadata["remainingItemCount"] = len(records) - limit
            records = records[:limit]
        return representation.collection(records, metadata)

    def _at_revision(self, target: Target, query: dict[str, str], token: _Continue | None) -> tuple[int, list[Record]]:
        current, plural = self._store.revision, target.resource.plural
        asked = integer(query, "resourceVersion") or 0
        if token is not None:
            if asked:
                raise errors.bad_request("specifying resource version is not allowed when using continue")
            if token.revision < self._store.oldest_revision:
                raise _expired_token(token, current)
            return token.revision, self._store.snapshot(plural, target.namespace, token.revision)
        if asked > current:
            raise errors.too_large_resource_version(asked, current)
        exact = query.get("resourceVersionMatch") == "Exact"
        if exact and asked:
            if asked < self._store.oldest_revision:
                raise errors.expired(f"The resourceVersion for the provided list is too old: {asked}")
            return asked, self._store.snapshot(plural, target.namespace, asked)
        return current, self._store.records(plural, target.namespace)


def integer(query: dict[str, str], name: str) -> int | None:
    """A non-negative number from the query, None when absent; raises BadRequest."""
    text = query.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise errors.bad_request(
            f'{name}: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


def _encode_token(token: _Continue) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode()


def _decode_token(text: str) -> _Continue:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Continue)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise errors.bad_request(f"continue key is not valid: {text}") from None


def _expired_token(token: _Continue, current: int) -> errors.StatusError:
    # as the API server, offer a token that goes on with the list as it is now
    fresh = _encode_token(_Continue(current, token.namespace, token.name))
    message = (
        "The provided continue parameter is too old to display a consistent list result. Start a new list, or use "
        "the token in this answer to read the rest as it is now."
    )
    return errors.expired(message, {"continue": fresh})
