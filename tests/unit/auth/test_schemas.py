from datetime import UTC, datetime

import msgspec
import pytest

from services.auth.schemas import AwsLoginRequest, AwsLoginResponse, LoginBody
from shared.errors import InvalidInput

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEBYaDExampleTokenExampleTokenExample"
GOOD = {"aws_access_key_id": "ASIAEXAMPLEEXAMPLE12", "aws_secret_access_key": SECRET, "aws_session_token": TOKEN}
Decoder = LoginBody[AwsLoginRequest]


def decode(body: bytes) -> AwsLoginRequest:
    decoder = object.__new__(Decoder)
    decoder.model_type = AwsLoginRequest
    return decoder.decode_bytes(body)


def problems(body: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decode(body)
    return caught.value


def test_good_credentials_are_read() -> None:
    credentials = decode(msgspec.json.encode(GOOD)).credentials()
    assert (credentials.secret_access_key, credentials.session_token) == (SECRET, TOKEN)


@pytest.mark.parametrize("token", [None, ""])
def test_a_missing_token_is_left_to_aws_to_refuse(token: str | None) -> None:
    assert decode(msgspec.json.encode({**GOOD, "aws_session_token": token})).credentials().session_token is None


@pytest.mark.parametrize(
    "changes",
    [
        {"aws_secret_access_key": SECRET + "\n"},
        {"aws_secret_access_key": SECRET + "\u0000"},
        {"aws_secret_access_key": SECRET * 10},
        {"aws_secret_access_key": [SECRET]},
        {"aws_secret_access_key": {SECRET: SECRET}},
        {"aws_session_token": TOKEN + "é"},
        {"aws_session_token": TOKEN * 1000},
        {"aws_access_key_id": 12},
        {SECRET: TOKEN},
        {TOKEN: 1, "extra": SECRET},
    ],
    ids=str,
)
def test_refusals_repeat_no_secret(changes: dict[str, object]) -> None:
    """Incident 16."""
    error = problems(msgspec.json.encode({**GOOD, **changes}))
    shown = msgspec.json.encode(error.problems).decode() + str(error) + repr(error)
    assert error.problems
    assert SECRET not in shown
    assert TOKEN not in shown


def test_an_unknown_field_is_named() -> None:
    assert problems(msgspec.json.encode({**GOOD, "region": "x"})).problems[0].loc == ("body", "region")


def test_all_problems_are_told() -> None:
    error = problems(b'{"aws_session_token": 1, "more": 2}')
    assert {(problem.type, problem.loc[-1]) for problem in error.problems} == {
        ("missing", "aws_access_key_id"),
        ("missing", "aws_secret_access_key"),
        ("string_type", "aws_session_token"),
        ("extra_forbidden", "more"),
    }


def test_neither_request_nor_answer_shows_its_secrets() -> None:
    request = decode(msgspec.json.encode(GOOD))
    answer = AwsLoginResponse(
        api_key="gpudev_x_secret",
        key_prefix="gpudev_x",
        user_id=1,
        username="u",
        aws_arn="arn",
        expires_at=datetime(2026, 1, 20, 20, tzinfo=UTC),
        ttl_hours=2,
    )
    shown = f"{request!r}{answer!r}"
    assert "gpudev_x" in shown
    assert not any(secret in shown for secret in (SECRET, TOKEN, "x_secret"))
