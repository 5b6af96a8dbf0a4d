"""How objects are written out: as themselves, or as the rows of a Table for `kubectl get`."""

import re
from dataclasses import dataclass

import msgspec

from deploy.local.cluster.apiserver import tables
from deploy.local.cluster.apiserver.http import Request
from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object
from deploy.local.cluster.registry.resources import Resource
from deploy.local.cluster.registry.store import Record

_TABLE = re.compile(r"as=Table;v=(v1beta1|v1);g=meta\.k8s\.io")


@dataclass(frozen=True, slots=True)
class Representation:
    """What the client's Accept header asks for."""

    resource: Resource
    table_version: str | None
    include_object: str

    @classmethod
    def requested(cls, request: Request, resource: Resource) -> "Representation":
        """Reads Accept and includeObject; raises BadRequest for an unknown includeObject."""
        include = request.query.get("includeObject", "Metadata")
        if include not in {"None", "Metadata", "Object"}:
            raise errors.bad_request(f"unrecognized includeObject value: {include}")
        match = _TABLE.search(request.headers.get("accept", "").replace(" ", ""))
        return cls(resource, match[1] if match else None, include)

    @property
    def content_type(self) -> str:
        """The media type of the answer."""
        return "application/json"

    def object(self, record: Record) -> bytes:
        """One object."""
        if self.table_version is None:
            return record.raw
        return self._table([record], {"resourceVersion": record.value["metadata"]["resourceVersion"]})

    def collection(self, records: list[Record], metadata: Object) -> bytes:
        """Many objects under the metadata of their list."""
        if self.table_version is not None:
            return self._table(records, metadata)
        head = msgspec.json.encode(
            {"kind": f"{self.resource.kind}List", "apiVersion": self.resource.api_version, "metadata": metadata}
        )
        return head[:-1] + b',"items":[' + b",".join(record.raw for record in records) + b"]}"

    def event(self, kind: str, record: Record) -> bytes:
        """One line of a watch."""
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), self.object(record))

    def _table(self, records: list[Record], metadata: Object) -> bytes:
        table = tables.render(self.resource, [record.value for record in records], self.include_object)
        head = {"kind": "Table", "apiVersion": f"meta.k8s.io/{self.table_version}", "metadata": metadata}
        return msgspec.json.encode({**head, **table})
