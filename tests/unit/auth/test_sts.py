import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from services.auth.adapters import sts as module
from services.auth.adapters.sts import CredentialsRefused, Sts, StsUnavailable
from services.auth.domain.roles import AwsCredentials, CallerIdentity

KEYS = AwsCredentials(access_key_id="ASIAEXAMPLE", secret_access_key="very-secret", session_token="very-token")
CALLER = {"Account": "308535385114", "Arn": "arn", "UserId": "AROA:x", "ResponseMetadata": {}}


@pytest.fixture
async def clock() -> list[float]:
    return [100.0]


@pytest.fixture
async def sts(clock: list[float]) -> AsyncIterator[Sts]:
    made = Sts(endpoint_url=None, region="us-east-2", clock=lambda: clock[0])
    yield made
    await made.close()


class FakeClient:
    def __init__(self, result: Any) -> None:
        self.result = result
        self.calls = 0

    def get_caller_identity(self) -> Any:
        self.calls += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def close(self) -> None:
        """Nothing is open."""


def answer_with(monkeypatch: pytest.MonkeyPatch, sts: Sts, result: Any) -> FakeClient:
    client = FakeClient(result)
    monkeypatch.setattr(sts, "_client", lambda _: client)
    return client


def client_error(code: str, status: int) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "very-secret"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "GetCallerIdentity")


async def test_the_environment_has_no_say_in_where_the_question_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-west-1\nendpoint_url = http://evil.example\nca_bundle = /nowhere\n")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://evil.example",
        "AWS_ENDPOINT_URL_STS": "http://evil.example",
        "AWS_PROFILE": "no-such-profile",
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(config),
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_REGION": "eu-west-1",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_STS_REGIONAL_ENDPOINTS": "legacy",
        "AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT",
        "AWS_SECRET_ACCESS_KEY": "environment",
        "AWS_SESSION_TOKEN": "environment",
        "AWS_CA_BUNDLE": "/nowhere",
        "AWS_MAX_ATTEMPTS": "9",
        "HTTPS_PROXY": "http://evil.example",
        "HTTP_PROXY": "http://evil.example",
    }.items():
        monkeypatch.setenv(name, value)
    sts = Sts(endpoint_url=None, region="us-east-2")
    keys = AwsCredentials(access_key_id="ASIAEXAMPLE", secret_access_key="s", session_token=None)
    client = sts._client(keys)
    assert client.meta.endpoint_url == "https://sts.us-east-2.amazonaws.com"
    assert client.meta.config.proxies == {}
    assert client.meta.config.retries["total_max_attempts"] == 1
    assert (client.meta.config.connect_timeout, client.meta.config.read_timeout) == (2, 3)
    signing = client._request_signer._credentials
    assert (signing.access_key, signing.secret_key, signing.token) == ("ASIAEXAMPLE", "s", None)
    session = client._endpoint.http_session
    assert session._verify is True
    assert session._proxy_config.proxy_url_for("https://sts.us-east-2.amazonaws.com") is None
    client.close()
    await sts.close()


async def test_a_configured_endpoint_is_the_one_that_is_asked() -> None:
    sts = Sts(endpoint_url="http://127.0.0.1:5000", region="us-east-2")
    client = sts._client(KEYS)
    assert client.meta.endpoint_url == "http://127.0.0.1:5000"
    client.close()
    await sts.close()


async def test_the_caller_is_told(monkeypatch: pytest.MonkeyPatch, sts: Sts) -> None:
    answer_with(monkeypatch, sts, CALLER)
    assert await sts.identify(KEYS) == CallerIdentity(account="308535385114", arn="arn", user_id="AROA:x")


@pytest.mark.parametrize(
    "code",
    ["InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "IncompleteSignature", "AccessDenied", "New"],
)
async def test_what_aws_refuses_is_refused_without_its_text(
    monkeypatch: pytest.MonkeyPatch, sts: Sts, code: str
) -> None:
    answer_with(monkeypatch, sts, client_error(code, 403))
    with pytest.raises(CredentialsRefused) as caught:
        await sts.identify(KEYS)
    assert "very-secret" not in f"{caught.value}{caught.value.context}"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "result",
    [
        client_error("Throttling", 400),
        client_error("ServiceUnavailable", 503),
        client_error("Unknown", 500),
        client_error("Unknown", 429),
        ReadTimeoutError(endpoint_url="https://sts"),
        {},
        OSError("no route"),
    ],
    ids=str,
)
async def test_an_outage_is_not_taken_for_wrong_credentials(
    monkeypatch: pytest.MonkeyPatch, sts: Sts, result: Any
) -> None:
    answer_with(monkeypatch, sts, result)
    with pytest.raises(StsUnavailable) as caught:
        await sts.identify(KEYS)
    assert caught.value.retry_after_seconds


async def test_after_three_outages_aws_is_spared_and_then_tried_again(
    monkeypatch: pytest.MonkeyPatch, sts: Sts, clock: list[float]
) -> None:
    client = answer_with(monkeypatch, sts, OSError("down"))
    for _ in range(10):
        with pytest.raises(StsUnavailable):
            await sts.identify(KEYS)
    assert client.calls == 3
    clock[0] += 5
    client.result = CALLER
    await sts.identify(KEYS)
    await sts.identify(KEYS)
    assert client.calls == 5


@pytest.mark.parametrize(
    "result", [client_error("InternalFailure", 500), ReadTimeoutError(endpoint_url="https://sts"), {}], ids=str
)
async def test_credentials_that_aws_stumbles_over_do_not_open_the_breaker(
    monkeypatch: pytest.MonkeyPatch, sts: Sts, result: Any
) -> None:
    crafted, healthy = FakeClient(result), FakeClient(client_error("MissingAuthenticationToken", 403))
    monkeypatch.setattr(sts, "_client", lambda credentials: healthy if credentials is None else crafted)
    for _ in range(10):
        with pytest.raises(StsUnavailable):
            await sts.identify(KEYS)
    assert crafted.calls == 10
    crafted.result = CALLER
    assert (await sts.identify(KEYS)).arn == "arn"


async def test_an_aws_that_answers_nobody_opens_the_breaker(monkeypatch: pytest.MonkeyPatch, sts: Sts) -> None:
    client = answer_with(monkeypatch, sts, client_error("InternalFailure", 500))
    for _ in range(10):
        with pytest.raises(StsUnavailable):
            await sts.identify(KEYS)
    assert client.calls == 6  # three questions, and after each one without credentials


async def test_wrong_credentials_do_not_open_the_breaker(monkeypatch: pytest.MonkeyPatch, sts: Sts) -> None:
    client = answer_with(monkeypatch, sts, client_error("SignatureDoesNotMatch", 403))
    for _ in range(10):
        with pytest.raises(CredentialsRefused):
            await sts.identify(KEYS)
    assert client.calls == 10


async def test_a_call_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, sts: Sts) -> None:
    release = threading.Event()
    monkeypatch.setattr(module, "_TOTAL_SECONDS", 0.05)
    monkeypatch.setattr(sts, "_client", lambda _: release.wait(10))
    try:
        with pytest.raises(StsUnavailable):
            await sts.identify(KEYS)
    finally:
        release.set()


def test_credentials_do_not_show_themselves() -> None:
    assert "very" not in f"{KEYS!r}{KEYS}"
