"""Questions to STS, on a server that answers as it is told to."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

from deploy.local.ports import free_ports
from services.auth.adapters.sts import CredentialsRefused, Sts, StsUnavailable
from services.auth.domain.roles import AwsCredentials, CallerIdentity
from tests.support.http_server import serving

KEYS = AwsCredentials(access_key_id="ASIAEXAMPLE", secret_access_key="very-secret", session_token="very-token")


@dataclass(frozen=True)
class Answer:
    status: int
    body: str
    hang: bool = False

    def __str__(self) -> str:
        return f"{self.status}-{self.body[:40]}{'-hang' if self.hang else ''}"


def error(code: str, status: int) -> Answer:
    text = f"<Error><Code>{code}</Code><Message>very-secret</Message></Error>"
    return Answer(status, f"<ErrorResponse>{text}</ErrorResponse>")


def identity(fields: str) -> Answer:
    result = f"<GetCallerIdentityResult>{fields}</GetCallerIdentityResult>"
    return Answer(200, f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>")


CALLER = identity("<Account>308535385114</Account><Arn>arn</Arn><UserId>AROA:x</UserId>")
HANGING = replace(CALLER, hang=True)
NOBODY = error("MissingAuthenticationToken", 403)


@dataclass
class FakeSts:
    """Answers signed questions and questions without credentials, and counts both."""

    url: str = ""
    signed: Answer = CALLER
    unsigned: Answer = NOBODY
    asked: dict[str, int] = field(default_factory=lambda: {"signed": 0, "unsigned": 0})

    async def answer(self, request: web.Request) -> web.Response:
        kind = "signed" if "Authorization" in request.headers else "unsigned"
        self.asked[kind] += 1
        answer = self.signed if kind == "signed" else self.unsigned
        if answer.hang:
            await asyncio.Event().wait()
        return web.Response(status=answer.status, text=answer.body, content_type="text/xml")


@pytest.fixture
async def fake() -> AsyncIterator[FakeSts]:
    fake = FakeSts()
    async with serving(fake.answer) as fake.url:
        yield fake


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
async def sts(fake: FakeSts, clock: list[float]) -> AsyncIterator[Sts]:
    made = Sts(endpoint_url=fake.url, region="us-east-2", clock=lambda: clock[0])
    yield made
    await made.close()


async def ask(sts: Sts, times: int, expected: type[Exception]) -> None:
    for _ in range(times):
        with pytest.raises(expected):
            await sts.identify(KEYS)


async def test_the_caller_is_told(sts: Sts) -> None:
    assert await sts.identify(KEYS) == CallerIdentity(account="308535385114", arn="arn", user_id="AROA:x")


@pytest.mark.parametrize(
    "code",
    ["InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "IncompleteSignature", "AccessDenied", "New"],
)
async def test_what_aws_refuses_is_refused_without_its_text(fake: FakeSts, sts: Sts, code: str) -> None:
    fake.signed = error(code, 403)
    with pytest.raises(CredentialsRefused) as caught:
        await sts.identify(KEYS)
    assert "very-secret" not in f"{caught.value}{caught.value.context}"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "answer",
    [
        error("Throttling", 400),
        error("RequestLimitExceeded", 400),
        error("ServiceUnavailable", 503),
        error("Unknown", 500),
        error("Unknown", 429),
        identity("<Account>308535385114</Account>"),
        HANGING,
    ],
    ids=str,
)
async def test_an_outage_is_not_taken_for_wrong_credentials(fake: FakeSts, sts: Sts, answer: Answer) -> None:
    fake.signed = answer
    with pytest.raises(StsUnavailable) as caught:
        await sts.identify(KEYS)
    assert caught.value.retry_after_seconds


async def test_after_three_outages_aws_is_spared_and_then_tried_again(
    fake: FakeSts, sts: Sts, clock: list[float]
) -> None:
    fake.signed = fake.unsigned = error("InternalFailure", 500)
    await ask(sts, 10, StsUnavailable)
    # three questions, and after each one without credentials
    assert fake.asked == {"signed": 3, "unsigned": 3}
    clock[0] += 5
    fake.signed = CALLER
    await sts.identify(KEYS)
    await sts.identify(KEYS)
    assert fake.asked["signed"] == 5


async def test_nothing_that_listens_opens_the_breaker(clock: list[float]) -> None:
    sts = Sts(endpoint_url=f"http://127.0.0.1:{free_ports(1)[0]}", region="us-east-2", clock=lambda: clock[0])
    for cause in ["EndpointConnectionError"] * 3 + ["the circuit breaker is open"]:
        with pytest.raises(StsUnavailable) as caught:
            await sts.identify(KEYS)
        assert caught.value.context["cause"] == cause
    await sts.close()


@pytest.mark.parametrize("answer", [error("InternalFailure", 500), identity("")], ids=str)
async def test_credentials_that_aws_stumbles_over_do_not_open_the_breaker(
    fake: FakeSts, sts: Sts, answer: Answer
) -> None:
    fake.signed = answer
    await ask(sts, 10, StsUnavailable)
    assert fake.asked == {"signed": 10, "unsigned": 10}
    fake.signed = CALLER
    assert (await sts.identify(KEYS)).arn == "arn"


async def test_wrong_credentials_do_not_open_the_breaker(fake: FakeSts, sts: Sts) -> None:
    fake.signed = error("SignatureDoesNotMatch", 403)
    await ask(sts, 10, CredentialsRefused)
    assert fake.asked["signed"] == 10


async def test_a_call_that_hangs_is_given_up(fake: FakeSts, clock: list[float]) -> None:
    fake.signed = HANGING
    sts = Sts(endpoint_url=fake.url, region="us-east-2", clock=lambda: clock[0], total_seconds=0.2)
    async with asyncio.timeout(60):
        await ask(sts, 1, StsUnavailable)
    await sts.close()
