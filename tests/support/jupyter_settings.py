"""What users have in their homes that would move JupyterLab, close it or open it to others."""

import json
from pathlib import Path
from typing import Any

THEIRS = "theirs-0123456789ab"
_SETTINGS: dict[str, dict[str, Any]] = {
    "ServerApp": {
        "base_url": "/theirs/",
        "port": 8999,
        "port_retries": 50,
        "ip": "127.0.0.9",
        "sock": "/tmp/theirs.sock",
        "root_dir": "/no/such",
        "preferred_dir": "/no/such",
        "default_url": "/tree",
        "certfile": "/no/such.pem",
        "keyfile": "/no/such.key",
        "client_ca": "/no/such.ca",
        "token": THEIRS,
        "password": "argon2:x",
        "password_required": True,
        "allow_root": False,
        "allow_remote_access": False,
        "open_browser": True,
        "shutdown_no_activity_timeout": 1,
        "identity_provider_class": "no.such.Provider",
        "authorizer_class": "no.such.Authorizer",
    },
    "IdentityProvider": {"token": THEIRS},
    "PasswordIdentityProvider": {"token": THEIRS, "hashed_password": "argon2:x", "password_required": True},
    "LabApp": {"default_url": "/tree", "dev_mode": True},
}


def write_settings_of_a_user(home: Path) -> None:
    """Every file that JupyterLab looks for below a home."""
    folder = home / ".jupyter"
    folder.mkdir()
    lines = [f"c.{name}.{key} = {value!r}" for name, part in _SETTINGS.items() for key, value in part.items()]
    for name in ("jupyter_config", "jupyter_server_config", "jupyter_lab_config"):
        (folder / f"{name}.py").write_text("\n".join(lines))
        (folder / f"{name}.json").write_text(json.dumps(_SETTINGS))
