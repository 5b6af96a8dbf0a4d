"""The merged API document, made from the running code, without a server; and values of its schemas."""

import asyncio
from typing import Any

from deploy.local.aws import role_arn
from services.auth.app import create_app as auth_app
from services.auth.settings import AuthSettings
from services.capacity.app import create_app as capacity_app
from services.capacity.settings import CapacitySettings
from services.disks.app import create_app as disks_app
from services.disks.settings import DisksSettings
from services.jobs.app import create_app as jobs_app
from services.jobs.settings import JobsSettings
from shared.web.docs import merge_documents
from shared.web.openapi import own_document
from tests.support.auth import new_key_hash_key
from tests.support.harness import new_secret_keys

_EXAMPLES = {
    "date-time": "2026-01-20T18:30:00Z",
    "date": "2026-02-19",
    "uuid": "5f0c1b9e-93a4-4cfb-a2a5-6f2b2b6ad0f1",
}


def api_document() -> dict[str, Any]:
    """What `/openapi.json` answers."""
    return asyncio.run(_api_document())


async def _api_document() -> dict[str, Any]:
    common: Any = {
        "database_url": "postgresql://nobody@127.0.0.1:1/none",
        "nats_url": "nats://127.0.0.1:1",
        "secret_keys": new_secret_keys(),
    }
    auth = AuthSettings(**common, allowed_roles=role_arn(), key_hash_key=new_key_hash_key())
    disks = DisksSettings(**common, aws_region="us-east-1", availability_zone="us-east-1a")
    return merge_documents(
        {
            "auth": own_document(auth_app(auth), "auth"),
            "jobs": own_document(jobs_app(JobsSettings(**common)), "jobs"),
            "disks": own_document(disks_app(disks), "disks"),
            "capacity": own_document(capacity_app(CapacitySettings(**common)), "capacity"),
        }
    )


def example_of(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """A value of a schema with every field that it may have."""
    if "$ref" in schema:
        return example_of(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    choices = schema.get("oneOf") or schema.get("anyOf")
    if choices:
        return example_of(document, next((one for one in choices if one.get("type") != "null"), {"type": "null"}))
    if "properties" in schema:
        return {name: example_of(document, field) for name, field in schema["properties"].items()}
    if schema.get("type") == "object":
        entries = schema["additionalProperties"]
        return {"any": example_of(document, entries)} if entries else {}
    if schema.get("type") == "array":
        return [example_of(document, schema["items"])]
    plain = {"string": "text", "integer": 8, "number": 1.5, "boolean": True, "null": None}
    return schema.get("enum", [_EXAMPLES.get(schema.get("format", ""), plain[schema["type"]])])[0]
