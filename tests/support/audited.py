"""Which routes have to leave an entry in the audit: all that are no reads."""

import json
from pathlib import Path

_DOCUMENTS = Path(__file__).parents[2] / "deploy" / "api"
_READS = {"get", "head", "options"}


def changing_routes(service: str) -> set[str]:
    """Operation ids of a service's routes that change something, by its document, which is held equal to its code."""
    document = json.loads((_DOCUMENTS / f"openapi-{service}.json").read_text())
    return {
        definition["operationId"]
        for item in document["paths"].values()
        for method, definition in item.items()
        if method not in _READS
    }
