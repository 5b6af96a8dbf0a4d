import base64
from datetime import timedelta

import pytest

from services.auth.settings import AuthSettings
from shared.settings import SettingsError, read_settings
from tests.support.auth import auth_settings, new_key_hash_key

NEEDED = {
    "GPUDEV_DATABASE_URL": "postgresql://x",
    "GPUDEV_NATS_URL": "nats://x",
    "GPUDEV_SECRET_KEYS": "x",
    "GPUDEV_ALLOWED_ROLES": "arn:aws:iam::308535385114:role/x",
    "GPUDEV_KEY_HASH_KEY": new_key_hash_key(),
}


def test_defaults_are_those_of_the_contract() -> None:
    terms = read_settings(AuthSettings, NEEDED).terms()
    assert (terms.ttl, terms.session) == (timedelta(hours=2), timedelta(hours=12))


@pytest.mark.parametrize("hours", ["0", "169", "-1", "2.5", "two", "1e3"])
def test_a_life_of_keys_out_of_bounds_is_refused(hours: str) -> None:
    with pytest.raises(SettingsError, match="GPUDEV_KEY_TTL_HOURS"):
        read_settings(AuthSettings, {**NEEDED, "GPUDEV_KEY_TTL_HOURS": hours})


@pytest.mark.parametrize("hours", ["1", "168"])
def test_the_bounds_themselves_are_allowed(hours: str) -> None:
    assert read_settings(AuthSettings, {**NEEDED, "GPUDEV_KEY_TTL_HOURS": hours}).key_ttl_hours == int(hours)


@pytest.mark.parametrize("key", ["short", base64.b64encode(b"x" * 31).decode(), "!" * 44])
def test_a_weak_hash_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(SettingsError, match="GPUDEV_KEY_HASH_KEY") as caught:
        auth_settings(key_hash_key=key).hash_key()
    assert key not in str(caught.value)


def test_both_alphabets_of_base64_are_read() -> None:
    raw = b"\xff\xfe\xfb" * 10 + b"xx"
    for text in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        assert auth_settings(key_hash_key=text).hash_key() == raw


def test_roles_that_cannot_be_read_are_named_at_start() -> None:
    with pytest.raises(SettingsError, match="GPUDEV_ALLOWED_ROLES"):
        auth_settings(allowed_roles="SSOCloudDevGpuReservation").roles()
