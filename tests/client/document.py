"""The merged API document, made from the running code, without a server; and values of its schemas."""

import asyncio
from typing import Any

from deploy.api.openapi import service_documents
from shared.web.docs import merge_documents

_EXAMPLES = {
    "date-time": "2026-01-20T18:30:00Z",
    "date": "2026-02-19",
    "uuid": "5f0c1b9e-93a4-4cfb-a2a5-6f2b2b6ad0f1",
}


def api_document() -> dict[str, Any]:
    """What `/openapi.json` answers."""
    return merge_documents(asyncio.run(service_documents()))


def example_of(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """A value of a schema with every field that it may have."""
    if "$ref" in schema:
        return example_of(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    choices = schema.get("oneOf") or schema.get("anyOf") or schema.get("allOf")
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
