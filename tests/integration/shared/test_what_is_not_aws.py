"""Something on the way to AWS answers in its place: a proxy's page, which is no answer of AWS."""

from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from services.auth.adapters.sts import Sts, StsUnavailable
from services.auth.domain.roles import AwsCredentials
from services.disks.adapters.ec2 import AwsUnavailable, Ec2


class Page(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(b"<html><p>Bad gateway, <br> try later</html>")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(params=[200, 502])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.status = request.param  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_page_in_place_of_volumes_is_an_outage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    ec2 = Ec2(region="us-east-1", endpoint_url=url)
    with pytest.raises(AwsUnavailable):
        await ec2.list_volumes()
    await ec2.close()


async def test_a_page_in_place_of_an_identity_is_an_outage(url: str) -> None:
    sts = Sts(endpoint_url=url, region="us-east-1")
    with pytest.raises(StsUnavailable):
        await sts.identify(
            AwsCredentials(access_key_id="ASIAEXAMPLE", secret_access_key="secret", session_token="token")
        )
    await sts.close()
