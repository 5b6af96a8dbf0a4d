"""Settings of auth, from environment variables named GPUDEV_<FIELD>."""

import base64
import binascii
from datetime import timedelta
from typing import Annotated

import msgspec

from services.auth.domain.keys import KeyTerms
from services.auth.domain.roles import AllowedRole, parse_allowed_roles, parse_operators
from shared.settings import CommonSettings, SettingsError

_KEY_BYTES = 32
_URL_SAFE = str.maketrans("-_", "+/")

Hours = Annotated[int, msgspec.Meta(ge=1, le=168)]
PerMinute = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class AuthSettings(CommonSettings, frozen=True, kw_only=True):
    allowed_roles: str
    """ARNs of the IAM roles whose sessions may log in, joined by commas."""
    operators: str = ""
    """ARNs of the role sessions that are operators (arn:aws:sts::<account>:assumed-role/<role>/<name>, or `/*` for all
    sessions of the role), joined by commas. Read at each log-in."""
    key_hash_key: str
    """Base64 of 32 bytes: API keys are stored as HMAC-SHA-256 under it. Another one makes every key unknown."""
    aws_endpoint_url: str | None = None
    """URL of STS; None: AWS's own of the region."""
    aws_region: str = "us-east-1"
    """AWS region of STS; any of the partition that the allowed roles are in."""
    key_ttl_hours: Hours = 2
    """Life of an API key, in hours."""
    session_hours: Hours = 12
    """From the AWS proof to the end of every key that descends from it by rotation, in hours."""
    login_limit_per_minute_address: PerMinute = 120
    """Log-ins per minute from one address (IPv6: one /64)."""
    login_limit_per_minute_access_key: PerMinute = 30
    """Log-ins per minute with one AWS access key id from one address."""

    def roles(self) -> tuple[AllowedRole, ...]:
        """The allowed roles.

        Raises:
            SettingsError: GPUDEV_ALLOWED_ROLES cannot be read.
        """
        try:
            return parse_allowed_roles(self.allowed_roles)
        except ValueError as error:
            raise SettingsError(f"GPUDEV_ALLOWED_ROLES: {error}") from error

    def operator_sessions(self) -> tuple[str, ...]:
        """The operators.

        Raises:
            SettingsError: GPUDEV_OPERATORS cannot be read.
        """
        try:
            return parse_operators(self.operators)
        except ValueError as error:
            raise SettingsError(f"GPUDEV_OPERATORS: {error}") from error

    def hash_key(self) -> bytes:
        """The key of the key hashes.

        Raises:
            SettingsError: GPUDEV_KEY_HASH_KEY is not 32 bytes in Base64.
        """
        try:
            key = base64.b64decode(self.key_hash_key.translate(_URL_SAFE), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY_BYTES:
            raise SettingsError(f"GPUDEV_KEY_HASH_KEY must be {_KEY_BYTES} bytes in Base64")
        return key

    def terms(self) -> KeyTerms:
        """For how long keys are given."""
        return KeyTerms(timedelta(hours=self.key_ttl_hours), timedelta(hours=self.session_hours))
