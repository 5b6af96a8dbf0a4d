from pathlib import Path
from typing import Any

import pytest

from services.auth.adapters.sts import Sts
from services.auth.domain.roles import AwsCredentials

KEYS = AwsCredentials(access_key_id="ASIAEXAMPLE", secret_access_key="very-secret", session_token="very-token")
CALLER = {"Account": "308535385114", "Arn": "arn", "UserId": "AROA:x"}


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
        "REQUESTS_CA_BUNDLE": "/nowhere",
        "AWS_MAX_ATTEMPTS": "9",
        "HTTPS_PROXY": "http://evil.example",
        "HTTP_PROXY": "http://evil.example",
    }.items():
        monkeypatch.setenv(name, value)
    sts = Sts(endpoint_url=None, region="us-east-2")
    made: list[Any] = []
    new_client = sts._aws._new_client

    def keep(*arguments: Any) -> Any:
        client = new_client(*arguments)
        client.get_caller_identity = lambda: CALLER
        made.append(client)
        return client

    monkeypatch.setattr(sts._aws, "_new_client", keep)
    await sts.identify(AwsCredentials(access_key_id="ASIAEXAMPLE", secret_access_key="s", session_token=None))
    (client,) = made
    assert client.meta.endpoint_url == "https://sts.us-east-2.amazonaws.com"
    assert client.meta.config.proxies == {}
    assert client.meta.config.retries["total_max_attempts"] == 1
    assert (client.meta.config.connect_timeout, client.meta.config.read_timeout) == (2, 3)
    signing = client._request_signer._credentials
    assert (signing.access_key, signing.secret_key, signing.token) == ("ASIAEXAMPLE", "s", None)
    session = client._endpoint.http_session
    assert session._verify is True
    assert session._proxy_config.proxy_url_for("https://sts.us-east-2.amazonaws.com") is None
    await sts.close()


def test_credentials_do_not_show_themselves() -> None:
    assert "very" not in f"{KEYS!r}{KEYS}"
