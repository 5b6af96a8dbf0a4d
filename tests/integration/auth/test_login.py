"""Logging in, on real servers."""

from datetime import UTC, datetime, timedelta

from shared.api_key import parse_api_key
from tests.support.auth import Client, bearer, log_in, new_name
from tests.support.servers import MotoServer


async def test_a_session_of_an_allowed_role_gets_a_key(auth_client: Client, moto_server: MotoServer) -> None:
    name = new_name()
    before = datetime.now(UTC).replace(microsecond=0)
    response = await log_in(auth_client, moto_server.identity(name))
    answer = response.json()
    assert response.status_code == 200, answer
    assert list(answer) == [
        "api_key", "key_prefix", "user_id", "username", "aws_arn", "expires_at", "ttl_hours",
    ]  # fmt: skip
    assert answer["username"] == name
    assert answer["ttl_hours"] == 2
    assert answer["expires_at"].endswith("Z")
    assert len(answer["expires_at"]) == len("2026-01-20T20:00:00Z")
    expires_at = datetime.fromisoformat(answer["expires_at"])
    assert before + timedelta(hours=2) <= expires_at <= datetime.now(UTC) + timedelta(hours=2)
    key = parse_api_key(answer["api_key"])
    assert key is not None
    assert key.prefix == answer["key_prefix"]
    assert (await auth_client.get("/v1/keys", headers=bearer(answer["api_key"]))).status_code == 200
