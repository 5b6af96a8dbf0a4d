"""The keyring of this machine: Keychain, Secret Service, Windows' Credential Locker; an extra."""

from typing import Any

from gpudev.cli.ending import CommandError

_SERVICE = "gpudev"
_STEP = "`pip install 'gpudev[keyring]'`, or keep the key in a file: `gpudev login --no-keyring`."


def check() -> None:
    """Try whether there is one.

    Raises:
        CommandError: There is none, or it is locked.
    """
    put("check", "-")
    remove("check")


def get(name: str) -> str | None:
    """A secret; None: there is none of that name.

    Raises:
        CommandError: There is no keyring, or it is locked.
    """
    found: str | None = _do("get_password", name)
    return found


def put(name: str, secret: str) -> None:
    """Keep a secret; the one of that name is replaced."""
    _do("set_password", name, secret)


def remove(name: str) -> None:
    """Remove a secret, if it is there."""
    if get(name) is not None:
        _do("delete_password", name)


def _do(verb: str, *arguments: str) -> Any:
    try:
        import keyring  # noqa: PLC0415 - an extra
        from keyring.errors import KeyringError  # noqa: PLC0415 - likewise
    except ImportError:
        raise CommandError("Python's package keyring is not installed", step=_STEP) from None
    try:
        return getattr(keyring, verb)(_SERVICE, *arguments)
    except (KeyringError, RuntimeError) as error:
        raise CommandError(f"The keyring: {error}", step=_STEP) from None
