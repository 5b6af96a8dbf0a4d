r"""The secrets of an installation, made once, as files for kubectl or for the External Secrets operator.

    python3 deploy/secrets.py new secrets --database 'db.example.org:5432/gpudev?sslmode=verify-full' \
      --nats nats://nats.nats:4222
    python3 deploy/secrets.py rotate secrets encryption

The folder is what to keep (a backup of the database cannot be read without it) and to keep secret:

    values.json     all of it; the other files are made of it
    gpudev.yaml     the services' Secrets, for `kubectl apply -f`
    nats.yaml       the Secret with NATS's passwords (not with --nats-credentials)
    database.env    passwords of the database's roles, for deploy/database/roles.sql
    external/       the same Secrets, a JSON object a file, for a secret store

Standard library only: it runs wherever Python 3.9 does.
"""

import argparse
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

SERVICES = ("auth", "jobs", "disks", "capacity")
NATS_USERS = (*SERVICES, "operator", "tools")
ROTATIONS = ("encryption", "database", "nats", "internal")
CREDENTIALS_FILE = "nats.creds"
CREDENTIALS_HELP = "where NATS knows users by JWT: the folder with auth.creds, jobs.creds, disks.creds, capacity.creds"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new", help="make the folder; refuses when it is there")
    new.add_argument("folder", type=Path)
    new.add_argument("--database", required=True, metavar="HOST[:PORT]/NAME[?OPTIONS]")
    new.add_argument("--nats", required=True, metavar="URL", help="nats:// or tls://, several joined by commas")
    new.add_argument("--nats-credentials", type=Path, metavar="FOLDER", help=CREDENTIALS_HELP)
    new.add_argument("--release", default="gpudev", help="name of the Helm release")
    new.add_argument("--namespace", default="gpudev-system", help="of the control plane")
    new.add_argument("--nats-namespace", default="nats")
    rotate = commands.add_parser("rotate", help="make secrets of one kind anew, and all files")
    rotate.add_argument("folder", type=Path)
    rotate.add_argument("kind", choices=ROTATIONS)
    rotate.add_argument("--nats-credentials", type=Path, metavar="FOLDER", help=f"nats: {CREDENTIALS_HELP}")
    rotate.add_argument("--only-newest", action="store_true", help="encryption: forget the older keys, make no new one")
    arguments = parser.parse_args()
    if arguments.command == "new":
        values = _new(arguments)
        try:
            arguments.folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            sys.exit(f"{arguments.folder} is there already: nothing was made. `rotate` makes single secrets anew.")
    else:
        values = json.loads((arguments.folder / "values.json").read_text())
        _rotate(values, arguments)
    for name, text in _files(values).items():
        _write_private(arguments.folder / name, text)
    sys.stdout.write(f"{arguments.folder}: {', '.join(sorted(_files(values)))}\n")


def _new(arguments: argparse.Namespace) -> dict[str, Any]:
    address, _, options = arguments.database.partition("?")
    host, _, database = address.partition("/")
    if not host or not database or "@" in arguments.database or "//" in arguments.database:
        sys.exit("--database is HOST[:PORT]/NAME[?OPTIONS], without user and password")
    servers = arguments.nats.split(",")
    if any("://" not in server or "@" in server for server in servers):
        sys.exit("--nats is a list of URLs without user and password, such as nats://nats.nats:4222")
    return {
        "release": arguments.release,
        "namespace": arguments.namespace,
        "nats_namespace": arguments.nats_namespace,
        "database": {"host": host, "name": database, "options": options},
        "nats": servers,
        "database_passwords": {service: _password() for service in SERVICES},
        **_nats_users(arguments),
        "encryption_keys": {service: [_key()] for service in SERVICES},
        "key_hash_key": _key(),
        "internal_token": _password(),
    }


def _rotate(values: dict[str, Any], arguments: argparse.Namespace) -> None:
    kind = arguments.kind
    if kind == "encryption":
        for service, keys in values["encryption_keys"].items():
            values["encryption_keys"][service] = keys[:1] if arguments.only_newest else [_key(), *keys]
    elif kind == "internal":
        values["internal_token"] = _password()
    elif kind == "database":
        values["database_passwords"] = {name: _password() for name in values["database_passwords"]}
    elif "nats_credentials" in values and arguments.nats_credentials is None:
        sys.exit("NATS knows these users by JWT: name the folder with their new files with --nats-credentials")
    else:
        del values["nats_credentials" if "nats_credentials" in values else "nats_passwords"]
        values |= _nats_users(arguments)


def _nats_users(arguments: argparse.Namespace) -> dict[str, Any]:
    """Passwords that are made here, or files that the operator of NATS made."""
    if arguments.nats_credentials is None:
        return {"nats_passwords": {user: _password() for user in NATS_USERS}}
    files = {service: arguments.nats_credentials / f"{service}.creds" for service in SERVICES}
    try:
        return {"nats_credentials": {service: file.read_text() for service, file in files.items()}}
    except OSError as error:
        sys.exit(f"--nats-credentials: {error.filename} cannot be read: {error.strerror}")


def _files(values: dict[str, Any]) -> dict[str, str]:
    services = {f"{values['release']}-{service}": _service(values, service) for service in SERVICES}
    return {
        "values.json": json.dumps(values, indent=1) + "\n",
        "gpudev.yaml": _manifests(values["namespace"], services),
        "database.env": "".join(f"{n.upper()}_PASSWORD={p}\n" for n, p in values["database_passwords"].items()),
        **{f"external/{name}.json": json.dumps(data, indent=1) + "\n" for name, data in services.items()},
        **_nats(values),
    }


def _nats(values: dict[str, Any]) -> dict[str, str]:
    """What NATS itself has to know: nothing where its users are JWTs."""
    if "nats_passwords" not in values:
        return {}
    lines = [f'{user.upper()}_PASSWORD: "{password}"\n' for user, password in values["nats_passwords"].items()]
    name, data = f"{values['release']}-nats", {"passwords.conf": "".join(lines)}
    return {
        "nats.yaml": _manifests(values["nats_namespace"], {name: data}),
        f"external/{name}.json": json.dumps(data, indent=1) + "\n",
    }


def _service(values: dict[str, Any], service: str) -> dict[str, str]:
    """The variables of one service, by their names."""
    database, password = values["database"], values["database_passwords"][service]
    options = f"?{database['options']}" if database["options"] else ""
    user = f"{service}:{values['nats_passwords'][service]}@" if "nats_passwords" in values else ""
    variables = {
        "GPUDEV_DATABASE_URL": f"postgresql://gpudev_{service}:{password}@{database['host']}/{database['name']}{options}",
        "GPUDEV_NATS_URL": ",".join(server.replace("://", f"://{user}", 1) for server in values["nats"]),
        "GPUDEV_SECRET_KEYS": ",".join(values["encryption_keys"][service]),
        "GPUDEV_INTERNAL_TOKEN": values["internal_token"],
    }
    if "nats_credentials" in values:
        variables[CREDENTIALS_FILE] = values["nats_credentials"][service]
    if service == "auth":
        variables["GPUDEV_KEY_HASH_KEY"] = values["key_hash_key"]
    return variables


def _manifests(namespace: str, objects: dict[str, dict[str, str]]) -> str:
    """Manifests as JSON, which is YAML too."""
    manifests = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "Opaque",
            "stringData": data,
        }
        for name, data in objects.items()
    ]
    return "".join(f"---\n{json.dumps(manifest, indent=1)}\n" for manifest in manifests)


def _write_private(path: Path, text: str) -> None:
    """Replace the file at once; at no moment may others read it."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _password() -> str:
    """160 random bits, safe in a URL, in SQL, in a shell and for NATS; `secrets` is this file, so not that module."""
    return "p" + os.urandom(20).hex()


def _key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


if __name__ == "__main__":
    main()
