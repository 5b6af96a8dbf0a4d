"""The page of the events, made of their document: no script, nothing from elsewhere."""

from collections.abc import Iterator
from html import escape
from typing import Any

Schema = dict[str, Any]
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>GPU Dev events</title>
  <link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
  <style>
    body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
    table {{ border-collapse: collapse; width: 100%; }}
    th, td {{ border-bottom: 1px solid #8884; padding: .25rem .5rem; text-align: left; vertical-align: top; }}
    code {{ overflow-wrap: anywhere; }}
    :root {{ color-scheme: light dark; }}
  </style>
</head>
<body>
<h1>GPU Dev events</h1>
<p>{description}</p>
<p>For machines: <a href="/docs/events.json">AsyncAPI 3</a>. The API: <a href="/docs">/docs</a>.</p>
<h2>What every event has</h2>
{envelope}
<nav aria-label="Events"><h2>Events</h2><ul>{index}</ul></nav>
{events}
</body>
</html>
"""


def events_page(document: Schema) -> str:
    """HTML of an AsyncAPI document of events."""
    schemas, messages = document["components"]["schemas"], document["components"]["messages"]
    return _PAGE.format(
        description=escape(document["info"]["description"]),
        envelope=_fields(schemas["CloudEvent"]),
        index="".join(f'<li><a href="#{escape(name)}">{escape(name)}</a></li>' for name in messages),
        events="\n".join(_event(name, document["channels"][name], messages[name], schemas) for name in messages),
    )


def _event(name: str, channel: Schema, message: Schema, schemas: Schema) -> str:
    data = message["payload"]["allOf"][1]["properties"]["data"]["$ref"].rpartition("/")[2]
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{escape(message["summary"])}</p>'
        f"<p><code>{escape(message['name'])}</code> on <code>{escape(channel['address'])}</code></p>"
        f"{_fields(schemas[data])}</section>"
    )


def _fields(schema: Schema) -> str:
    required = schema.get("required", ())
    rows = (
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(' or '.join(_types(field)))}</td>"
        f"<td>{'yes' if name in required else 'no'}</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    head = (
        '<tr><th scope="col">field</th><th scope="col">type</th><th scope="col">always</th><th scope="col"></th></tr>'
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _types(schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    for one in schema.get("anyOf", ()):
        yield from _types(one)
    if "type" in schema:
        yield str(schema.get("format", schema["type"]))
