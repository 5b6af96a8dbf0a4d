"""libpq's URLs for asyncpg: of what the driver does not know the harmless is left out, and the rest is refused."""

import os
import ssl
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from shared.settings import SettingsError

_DRIVER = frozenset(
    {
        *("host", "port", "dbname", "user", "password", "passfile", "service", "target_session_attrs"),
        *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
        *("application_name", "options"),
    }
)
"""Options that asyncpg takes; the last two go to the server as they are."""
_LEFT_OUT = frozenset(
    {
        *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
        *("tcp_user_timeout", "load_balance_hosts", "fallback_application_name", "client_encoding"),
        *("gssencmode", "gssdelegation", "sslcompression", "sslsni", "sslcertmode"),
    }
)
"""Options that change nothing of what is said to whom: services have time limits of their own."""
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_HOME_AUTHORITIES = Path("~/.postgresql/root.crt")
_SYSTEM = "system"
"""A value of sslrootcert: the machine's own certificate authorities."""


def driver_dsn(dsn: str) -> str:
    """The same database for asyncpg.

    Args:
        dsn: postgresql:// URL with libpq's options, such as `?sslmode=verify-full&sslrootcert=/path`.

    Raises:
        SettingsError: It cannot be read, has an option that is unknown or cannot be honoured, or names a file that is
            not there. The text repeats no value.
    """
    parts, options = _read(dsn)
    kept = {name: value for name, value in options.items() if name not in _LEFT_OUT}
    if kept.get("channel_binding", "prefer") != "require":
        kept.pop("channel_binding", None)
    for name in kept:
        if name not in _DRIVER:
            raise SettingsError(f"the database URL has the option {name!r}, which is unknown or not supported")
    _check_tls(kept)
    if kept.get("sslrootcert") == _SYSTEM:
        kept["sslrootcert"] = _system_authorities()
    return parts._replace(query=urlencode(kept)).geturl()


def _read(dsn: str) -> tuple[SplitResult, dict[str, str]]:
    try:
        parts = urlsplit(dsn)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise SettingsError("the database URL cannot be read") from error
    if parts.scheme not in {"postgresql", "postgres"}:
        raise SettingsError("the database URL does not begin with postgresql://")
    if parts.fragment:
        raise SettingsError("the database URL has a '#': write %23 for one in a password")
    return parts, options


def _check_tls(options: dict[str, str]) -> None:
    mode = options.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise SettingsError(f"sslmode of the database URL must be one of {', '.join(_SSL_MODES)}")
    if options.get("sslrootcert") == _SYSTEM:
        if options.setdefault("sslmode", "verify-full") != "verify-full":
            raise SettingsError("sslrootcert=system of the database URL wants sslmode=verify-full")
        return
    for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
        if name in options and not Path(options[name]).is_file():
            raise SettingsError(f"{name} of the database URL names a file that is not there")
    named = options.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if mode.startswith("verify") and not named and not _HOME_AUTHORITIES.expanduser().is_file():
        raise SettingsError(f"sslmode={mode} of the database URL wants sslrootcert")


def _system_authorities() -> str:
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.openssl_cafile
