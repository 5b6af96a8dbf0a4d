"""Logging in by a signature: the secret key stays with who has it, and what it has signed is of no other use."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from deploy.local.aws import Keys
from services.auth.adapters.sts import Sts
from services.auth.domain.roles import SignedQuestion
from tests.support.auth import Client, bearer, new_name
from tests.support.servers import MotoServer


async def sign(client: Client, keys: Keys, **changes: str) -> dict[str, str]:
    """What AWS's own library signs, of what the service says is to be signed."""
    wanted: dict[str, Any] = (await client.get("/v1/auth/aws-signing")).json() | changes
    headers = {"host": wanted["host"], "x-gpudev-login": wanted["x_gpudev_login"]}
    request = AWSRequest("POST", f"http://{wanted['host']}/", data=wanted["body"], headers=headers)
    credentials = Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    SigV4Auth(credentials, wanted["service"], wanted["region"]).add_auth(request)
    signed = request.headers["Authorization"]
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token;x-gpudev-login," in signed
    return {
        "aws_access_key_id": keys.access_key_id,
        "aws_session_token": str(keys.session_token),
        "signed_at": request.headers["X-Amz-Date"],
        "signature": signed.rpartition("Signature=")[2],
    }


async def test_a_signature_gets_a_key_as_the_credentials_would(auth_client: Client, moto_server: MotoServer) -> None:
    name = new_name()
    answer = await auth_client.post(
        "/v1/auth/aws-signed-login", json=await sign(auth_client, moto_server.identity(name))
    )
    given = answer.json()
    assert answer.status_code == 200, given
    assert given["username"] == name
    assert (await auth_client.get("/v1/keys", headers=bearer(given["api_key"]))).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [{"x_gpudev_login": "other"}, {"body": "Action=GetSessionToken&Version=2011-06-15"}, {"region": "eu-west-1"}],
    ids=lambda changes: next(iter(changes)),
)
async def test_what_was_signed_for_something_else_is_of_no_use(
    auth_client: Client, moto_server: MotoServer, changes: dict[str, str]
) -> None:
    signed = await sign(auth_client, moto_server.identity(new_name()), **changes)
    answer = await auth_client.post("/v1/auth/aws-signed-login", json=signed)
    assert (answer.status_code, answer.json()["detail"]) == (
        401,
        "The AWS credentials are wrong, expired or incomplete",
    )


async def test_a_changed_signature_and_a_wrong_secret_are_refused(auth_client: Client, moto_server: MotoServer) -> None:
    keys = moto_server.identity(new_name())
    good = await sign(auth_client, keys)
    wrong = await sign(
        auth_client,
        Keys(access_key_id=keys.access_key_id, secret_access_key="w" * 40, session_token=keys.session_token),
    )
    for body in ({**good, "signature": "0" * 64}, {**good, "signed_at": "20260120T183000Z"}, wrong):
        answer = await auth_client.post("/v1/auth/aws-signed-login", json=body)
        assert answer.status_code == 401, answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("signature", "x"),
        ("signature", "0" * 64 + "\r\nX: y"),
        ("aws_access_key_id", "ASIA/x, SignedHeaders=host"),
        ("aws_session_token", "a b"),
        ("signed_at", "now"),
    ],
)
async def test_nothing_else_gets_into_the_question(auth_client: Client, field: str, value: str) -> None:
    good = {
        "aws_access_key_id": "ASIAEXAMPLEEXAMPLE12",
        "aws_session_token": "token",
        "signed_at": "20260120T183000Z",
        "signature": "0" * 64,
    }
    answer = await auth_client.post("/v1/auth/aws-signed-login", json={**good, field: value})
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"][0]["loc"] == ["body", field]
    assert json.dumps(value) not in answer.text


async def test_the_time_to_sign_by_is_the_services(auth_client: Client) -> None:
    told = datetime.fromisoformat((await auth_client.get("/v1/auth/aws-signing")).json()["time"])
    assert abs(told - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_host_is_that_of_the_region_and_partition() -> None:
    assert Sts(endpoint_url=None, region="us-east-2").host == "sts.us-east-2.amazonaws.com"
    assert Sts(endpoint_url=None, region="cn-north-1").host == "sts.cn-north-1.amazonaws.com.cn"
    question = SignedQuestion(access_key_id="A", session_token="t", signed_at="20260120T183000Z", signature="f")
    assert "t" not in repr(question).removeprefix("SignedQuestion")
