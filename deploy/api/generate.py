"""Make the API's documents of the code: `python -m deploy.api.generate`, or `make api`.

openapi.json is what `/openapi.json` answers, openapi-<service>.json each service's part of it, asyncapi.json what
`/docs/events.json` answers. A change that breaks readers of events is refused: such an event needs a type of its own.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from deploy.api.compatibility import breaking_changes
from deploy.api.openapi import service_documents
from shared.contracts.asyncapi import asyncapi_document
from shared.web.docs import merge_documents

HERE = Path(__file__).parent
EVENTS = "asyncapi.json"


def documents() -> dict[str, Any]:
    """Each file's name and what it is to hold."""
    parts = asyncio.run(service_documents())
    return {
        EVENTS: asyncapi_document(),
        "openapi.json": merge_documents(parts),
        **{f"openapi-{service}.json": part for service, part in parts.items()},
    }


def text_of(document: Any) -> str:
    """A document as its file holds it."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    made = documents()
    before = HERE / EVENTS
    broken = breaking_changes(json.loads(before.read_text()), made[EVENTS]) if before.exists() else []
    if broken:
        sys.exit("\n".join(["Readers of events would break:", *broken]))
    for name, document in made.items():
        (HERE / name).write_text(text_of(document))


if __name__ == "__main__":
    main()
