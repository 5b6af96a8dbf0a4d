"""Fixtures of the auth service."""

from tests.support.auth import auth_client, auth_database, auth_dsn, auth_operations, auth_schema, real_auth_settings

__all__ = ["auth_client", "auth_database", "auth_dsn", "auth_operations", "auth_schema", "real_auth_settings"]
