"""A user of JupyterLab, as its page in a browser is one: the REST API, and a kernel's messages over a WebSocket."""

import json
import ssl
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp

from tests.support.ssh import Typed


class _Names(aiohttp.ThreadedResolver):
    """Names below localhost are this machine, as browsers have it (RFC 6761 section 6.3), and not every system.

    Args:
        address: Of all others; None: as the system knows them.
    """

    def __init__(self, address: str | None) -> None:
        super().__init__()
        self._address = address

    async def resolve(self, host: str, *arguments: Any, **more: Any) -> Any:
        """The addresses of a name."""
        known = "localhost" if host.endswith(".localhost") else self._address or host
        return [{**one, "hostname": host} for one in await super().resolve(known, *arguments, **more)]


class Notebook:
    """Speaks to one JupyterLab.

    Args:
        url: `jupyter_url`, with its token.
        address: Where its host is, if no name server knows it.
        tls: What is trusted; None: what the system trusts.
    """

    def __init__(self, url: str, *, address: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._address, self._tls = address, tls
        parts = urlsplit(url)
        self.base = f"{parts.scheme}://{parts.netloc}"
        self.token = parse_qs(parts.query)["token"][0]

    async def status(self, *, token: str | None = None) -> int | None:
        """The HTTP status of an API call with this token or another; None when nobody answers."""
        header = {"Authorization": f"token {token or self.token}"}
        try:
            async with self._browser() as session, session.get(f"{self.base}/api/me", headers=header) as answer:
                return answer.status
        except aiohttp.ClientError:
            return None

    async def answers(self) -> bool:
        """Whether it lets its user in: the ingress knows a job's host a moment after the job does."""
        return await self.status() == 200

    async def run_cell(self, code: str) -> str:
        """Run code in a new kernel; what it prints."""
        async with self._browser(self.token) as session:
            async with session.post(f"{self.base}/api/kernels", json={"name": "python3"}) as answer:
                assert answer.status == 201, await answer.text()
                kernel = (await answer.json())["id"]
            async with session.ws_connect(f"{self.base}/api/kernels/{kernel}/channels") as socket:
                request = _execute_request(code)
                await socket.send_json(request)
                return await _printed(socket, request["header"]["msg_id"])

    async def run_in_terminal(self, script: str) -> str:
        """Have a script run by the shell of a new terminal; what comes before and after it is left out."""
        typed = Typed(script)
        async with self._browser(self.token) as session:
            async with session.post(f"{self.base}/api/terminals") as answer:
                assert answer.status == 200, await answer.text()
                name = (await answer.json())["name"]
            async with session.ws_connect(f"{self.base}/terminals/websocket/{name}") as socket:
                text = ""
                while not typed.is_done(text):
                    kind, *content = json.loads(await socket.receive_str(timeout=60))
                    if kind == "setup":
                        await socket.send_json(["stdin", f"{typed.line}\r"])
                    elif kind == "stdout":
                        text += content[0]
        return typed.printed(text)

    def _browser(self, token: str | None = None) -> aiohttp.ClientSession:
        headers = {"Authorization": f"token {token}"} if token else {}
        connector = aiohttp.TCPConnector(resolver=_Names(self._address), ssl=self._tls or True)
        return aiohttp.ClientSession(headers=headers, connector=connector)


def _execute_request(code: str) -> dict[str, Any]:
    """https://jupyter-client.readthedocs.io/en/stable/messaging.html#execute."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "username": "",
        "session": "",
        "version": "5.3",
    }
    content = {"code": code, "silent": False}
    return {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}


async def _printed(socket: aiohttp.ClientWebSocketResponse, request: str) -> str:
    text = ""
    while True:
        message = json.loads(await socket.receive_str(timeout=60))
        if message["parent_header"].get("msg_id") != request:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            text += content["text"]
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            return text
