"""Calls of AWS, on a server that answers as it is told to."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from botocore import UNSIGNED
from botocore.config import Config

from shared.aws import AwsError, AwsService, AwsSilent
from tests.support.http_server import serving
from tests.support.servers import free_ports

SIGNING = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret"}


def refusal(code: str, message: str = "told to") -> str:
    return f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"


@dataclass
class FakeAws:
    url: str = ""
    status: int = 200
    body: str = "<DescribeVolumesResponse><volumeSet/></DescribeVolumesResponse>"
    hang: bool = False
    signed: bool = False
    requests: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.signed = "Authorization" in request.headers
        if self.hang:
            await asyncio.Event().wait()
        return web.Response(status=self.status, text=self.body, content_type="text/xml")


@pytest.fixture
async def fake() -> AsyncIterator[FakeAws]:
    fake = FakeAws()
    async with serving(fake.answer) as fake.url:
        yield fake


@pytest.fixture
async def ec2(fake: FakeAws) -> AsyncIterator[AwsService]:
    made = AwsService("ec2", region="us-east-2", endpoint_url=fake.url, read_seconds=1)
    yield made
    await made.close()


def describe(client: Any) -> Any:
    return client.describe_volumes()["Volumes"]


async def test_an_answer_is_what_the_call_makes_of_it(
    ec2: AwsService, fake: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert await ec2.call(describe) == []
    assert fake.signed


async def test_a_call_may_be_signed_by_others_or_by_nobody(ec2: AwsService, fake: FakeAws) -> None:
    assert await ec2.call_as(describe, **SIGNING) == []
    assert fake.signed
    assert await ec2.call_as(describe, Config(signature_version=UNSIGNED)) == []
    assert not fake.signed


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InvalidVolume.NotFound", 400, "refusal"),
        ("UnauthorizedOperation", 403, "refusal"),
        ("RequestLimitExceeded", 503, "throttling"),
        ("Throttling", 400, "throttling"),
        ("", 429, "throttling"),
        ("InternalError", 500, "fault"),
        ("ServiceUnavailable", 503, "fault"),
        ("", 502, "fault"),
    ],
)
async def test_an_error_of_aws_is_told_once_and_as_it_is(
    ec2: AwsService, fake: FakeAws, code: str, status: int, kind: str
) -> None:
    fake.status, fake.body = status, refusal(code)
    with pytest.raises(AwsError) as caught:
        await ec2.call_as(describe, **SIGNING)
    error = caught.value
    assert (error.code, error.status, error.message) == (code, status, "told to")
    assert (error.is_throttling, error.is_fault) == (kind == "throttling", kind == "fault")
    assert fake.requests == 1


async def test_an_errors_text_is_in_none_that_a_log_would_show(ec2: AwsService, fake: FakeAws) -> None:
    fake.status, fake.body = 403, refusal("SignatureDoesNotMatch", "very-secret")
    with pytest.raises(AwsError) as caught:
        await ec2.call_as(describe, **SIGNING)
    assert "very-secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("page", ["<html><p>Bad gateway, <br></html>", ""])
async def test_a_page_is_no_answer(ec2: AwsService, fake: FakeAws, page: str) -> None:
    fake.body = page
    with pytest.raises(AwsSilent) as caught:
        await ec2.call_as(describe, **SIGNING)
    assert caught.value.sent


async def test_silence_may_have_had_its_effect(ec2: AwsService, fake: FakeAws) -> None:
    fake.hang = True
    with pytest.raises(AwsSilent) as caught:
        await asyncio.wait_for(ec2.call_as(describe, **SIGNING), 60)
    assert caught.value.sent
    assert fake.requests == 1


async def test_a_server_that_is_not_there_had_no_effect() -> None:
    nowhere = AwsService("ec2", region="us-east-2", endpoint_url=f"http://127.0.0.1:{free_ports(1)[0]}", read_seconds=1)
    with pytest.raises(AwsSilent) as caught:
        await nowhere.call_as(describe, **SIGNING)
    assert not caught.value.sent
    await nowhere.close()


async def test_the_library_never_logs_what_it_signs(
    ec2: AwsService, fake: FakeAws, caplog: pytest.LogCaptureFixture
) -> None:
    fake.status, fake.body = 403, refusal("UnauthorizedOperation")
    with caplog.at_level(logging.DEBUG), suppress(AwsError):
        await ec2.call_as(describe, **SIGNING)
    assert "AKIAEXAMPLE" not in caplog.text
