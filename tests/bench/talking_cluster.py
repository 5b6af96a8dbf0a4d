"""An API server whose pods all run and print a line a second: `python -m tests.bench.talking_cluster PORT`.

A thousand real containers would take the machine that is measured; the service speaks to it as to any cluster.
"""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Any

import uvloop
from aiohttp import web

PREFIX = "gpu-dev-"
LINE = b"epoch 3, step 1200: loss 0.4711, 1234 samples a second\n"


def _pod(name: str) -> dict[str, Any]:
    running = {"name": "main", "ready": True, "started": True, "state": {"running": {}}}
    conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready")]
    status = {"phase": "Running", "hostIP": "127.0.0.1", "conditions": conditions, "containerStatuses": [running]}
    return {"kind": "Pod", "metadata": {"name": name, "uid": name}, "spec": {}, "status": status}


async def _log(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    while True:
        await response.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z ".encode() + LINE)
        await asyncio.sleep(1)


async def _object(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return web.json_response(_pod(name) if name.startswith(PREFIX) else {"kind": "Any", "metadata": {"name": name}})


async def _is_there_already(_: web.Request) -> web.Response:
    return web.json_response({"kind": "Status", "code": 409, "reason": "AlreadyExists"}, status=409)


async def _list(request: web.Request) -> web.StreamResponse:
    if request.query.get("watch") == "true":
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(float(request.query.get("timeoutSeconds", "10")))
        return response
    return web.json_response({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []})


def main() -> None:
    """Serve until ended."""
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", _log)
    app.router.add_get("/api/v1/namespaces/{namespace}/{kind}/{name}", _object)
    app.router.add_post("/api/v1/namespaces", _is_there_already)
    app.router.add_get("/api/v1/nodes/{name}", _object)
    app.router.add_get("/{path:.*}", _list)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
