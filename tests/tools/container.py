"""A container as a node makes one, in namespaces of its own: a root directory, the tools in it, and their program as
the first process. Needs root on Linux.
"""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

USR_LINKS = ("bin", "lib", "lib64", "sbin")
MOUNTS = ("gpudev/access", "home/dev", "proc", "dev", "tmp")
# what a runtime gives every container: /proc, a few devices, terminals of its own, a loopback interface that is up
SETUP = """
set -e
mount --make-rprivate /
for mount in $MOUNTS_OF_THE_MACHINE; do
  mount --bind "$mount" "$ROOT$mount"
  mount -o remount,ro,bind "$ROOT$mount"
done
mount -t proc proc "$ROOT/proc"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/dev"
mkdir "$ROOT/dev/pts" "$ROOT/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$ROOT/dev/pts"
ln -s pts/ptmx "$ROOT/dev/ptmx"
for device in null zero random urandom tty; do
  touch "$ROOT/dev/$device"
  mount --bind "/dev/$device" "$ROOT/dev/$device"
done
chmod 1777 "$ROOT/dev/shm"
touch "$ROOT/dev/termination-log" "$READY"
chmod 666 "$ROOT/dev/termination-log"
"$BUSYBOX" ip link set lo up
exec chroot --userspec="$USER_ID:$USER_ID" "$ROOT" /gpudev/bin/sh -c 'cd "$0" && exec /gpudev/bin/gpudev run "$@"' \
  "$DIRECTORY" "$@"
"""


class Container:
    """One container; its volumes outlive it, as a pod's do.

    Args:
        folder: For its root and volumes.
        tools: Root of the tools image.
        kind: `debian` (this machine's /usr), `musl` (busybox and musl's loader) or `empty`.
        user_id: Whom it runs as.
    """

    def __init__(self, folder: Path, tools: Path, kind: str, *, user_id: int = 0) -> None:
        self.root = folder / "root"
        self._folder, self._tools, self._user_id = folder, tools, user_id
        self._machine = "/usr" if kind == "debian" else ""
        for name in MOUNTS:
            (self.root / name).mkdir(parents=True)
        for name in ("home/dev", "tmp"):
            (self.root / name).chmod(0o1777)
        if kind == "debian":
            (self.root / "usr").mkdir()
            for name in USR_LINKS:
                (self.root / name).symlink_to(f"usr/{name}")
        if kind == "musl":
            self._add_musl()
        folder.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def _add_musl(self) -> None:
        (self.root / "bin").mkdir()
        (self.root / "lib").mkdir()
        shutil.copy(self._tools / "gpudev-tools/bin/busybox", self.root / "bin/busybox")
        for program in ("sh", "cat", "env", "id", "sleep", "stty", "tty"):
            (self.root / "bin" / program).symlink_to("busybox")
        shutil.copy("/usr/lib/x86_64-linux-musl/libc.so", self.root / "lib/ld-musl-x86_64.so.1")

    def install(self, keys: str) -> None:
        """What the init container and the access volume do."""
        (self.root / "gpudev/access/authorized_keys").write_text(keys)
        program = self._tools / "gpudev-tools/bin/gpudev"
        subprocess.run([program, "install", self.root / "gpudev"], check=True)

    def start(self, *argv: str, options: Sequence[str] = (), directory: str = "/", **variables: str) -> None:
        """Start it and return when its first process runs, or has ended.

        Args:
            argv: The command; none: it idles.
            options: Of `gpudev run`.
            directory: The image's own working directory.
            variables: Of its environment.
        """
        ready = self._folder / "ready"
        ready.unlink(missing_ok=True)
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/home/dev",
            **variables,
            "ROOT": str(self.root),
            "USER_ID": str(self._user_id),
            "DIRECTORY": directory,
            "BUSYBOX": str(self._tools / "gpudev-tools/bin/busybox"),
            "READY": str(ready),
            "MOUNTS_OF_THE_MACHINE": self._machine,
        }
        call = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", SETUP, "setup"]
        with (self._folder / "out").open("wb") as out, (self._folder / "err").open("wb") as err:
            self._process = subprocess.Popen(
                [*call, *options, *(["--", *argv] if argv else [])],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        process, children = self._process, Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")

        def is_inside() -> bool:
            if process.poll() is not None:
                return True
            first = children.read_text().split()
            self.pid = int(first[0]) if first else self.pid
            return ready.exists() and bool(first) and self._is_inside()

        eventually(is_inside, self.errors)

    def _is_inside(self) -> bool:
        """Whether its first process is the program, or was."""
        try:
            return Path(f"/proc/{self.pid}/exe").readlink().name == "gpudev"
        except FileNotFoundError:
            return True

    def errors(self) -> str:
        """What it has printed on standard error."""
        return (self._folder / "err").read_text()

    def output(self) -> str:
        """What it has printed on standard output: the pod's log."""
        return self.raw_output().decode()

    def raw_output(self) -> bytes:
        """The same, byte for byte."""
        return (self._folder / "out").read_bytes()

    def termination_message(self) -> str:
        """What it wrote before its end; readable while it lives."""
        return Path(f"/proc/{self.pid}/root/dev/termination-log").read_text()

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM; its exit code."""
        os.kill(self.pid, 15)
        return self.wait(seconds)

    def wait(self, seconds: float = 60) -> int:
        """Its exit code, once it has ended by itself."""
        assert self._process is not None
        code = self._process.wait(seconds)
        self._process = None
        return code

    def close(self) -> None:
        """Whatever is left of it ends with its first process."""
        if self._process is not None:
            if self.pid:
                os.kill(self.pid, 9)
            self._process.wait(60)

    def call(self, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """`gpudev ...` by exec, as the container's user."""
        return self._execute(self._user_id, ["/gpudev/bin/gpudev", *argv], stdin)

    def as_user(self, user_id: int, script: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """A script in the container, as whichever user, with the tools' programs."""
        return self._execute(user_id, ["/gpudev/bin/sh", "-c", script], stdin)

    def _execute(self, user_id: int, argv: Sequence[str], stdin: bytes) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-r", "-S", str(user_id), "-G", str(user_id)]
        done = subprocess.run(
            [*enter, *argv],
            input=stdin,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
            capture_output=True,
            timeout=120,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def within(self, *command: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        """A program of this machine in the container's network."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", *command], input=stdin, capture_output=True, timeout=120, check=False
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def ssh(self, key: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        """A command in a session, by OpenSSH's client."""
        where = ["-p", "2222", "dev@127.0.0.1"]
        return self.within("ssh", *ssh_options(key, self._folder), *options, *where, script)

    def shell(self, key: Path, script: str) -> str:
        """All that a session with a terminal shows when a script is typed into its shell."""
        options = [*ssh_options(key, self._folder), "-tt", "-p", "2222", "dev@127.0.0.1"]
        return self.within("ssh", *options, stdin=f"{script}\nexit\n".encode()).stdout

    def await_ready(self) -> None:
        """As the kubelet's probe does."""
        eventually(lambda: self.call("ready").returncode == 0, self.errors)


def ssh_options(key: Path, folder: Path) -> Sequence[str]:
    """One key, and the host's keys remembered in the folder."""
    known = f"UserKnownHostsFile={shlex.quote(str(folder / 'known_hosts'))}"
    options = (known, "StrictHostKeyChecking=accept-new", "BatchMode=yes", "IdentitiesOnly=yes", "LogLevel=ERROR")
    return ["-F", "/dev/null", "-i", str(key), *(word for option in options for word in ("-o", option))]


def frame(content: bytes) -> bytes:
    """Standard input of a call: its length on a line before it."""
    return b"%d\n%b" % (len(content), content)


def eventually(probe: object, explain: object, seconds: float = 60) -> None:
    """Wait for a fact."""
    end = time.monotonic() + seconds
    while not probe():  # type: ignore[operator]
        assert time.monotonic() < end, explain()  # type: ignore[operator]
        time.sleep(0.02)
