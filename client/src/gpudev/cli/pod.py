"""A run's shell in its job: `pod.sh`, sent along each time, so that both sides are of one version."""

import os
import re
import shlex
import shutil
import uuid
from dataclasses import dataclass
from importlib.resources import files

from gpudev.cli import ssh
from gpudev.cli.ending import CommandError
from gpudev.models import Job

SCRIPT = files("gpudev.cli").joinpath("pod.sh").read_bytes()
STATE = ".gpudev-run"
"""In the command's folder: what `pod.sh` keeps there, in a folder for each run."""
MARK = b"gpudev-run\n"
"""Before the first byte of an answer on standard output."""
_OPTIONS = (
    *("-T", "-o", "ControlMaster=no", "-o", "ControlPath=none"),
    # a line that is dead is noticed within 15 s
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "LogLevel=ERROR"),
)
_NEWS = "gpudev-run: "
_SHOWN_COMMAND = 200
_BEGIN = re.compile(r"# gpudev run ([0-9a-f]{32})[:\n]")
_WAIT = """\
b=/gpudev/bin/busybox; [ -x $b ] || b=
d={state}; $b mkdir -p $d; : > $d/alive
while [ ! -e $d/go ]; do
  $b sleep 0.2
  [ -n "$($b find $d/alive -mmin -15)" ] || {{ echo 'gpudev run: no files came within 15 minutes'; exit 124; }}
done
set -- run $d; . ./$d/pod.sh
"""


@dataclass(frozen=True)
class Run:
    """One run, as its job tells of it."""

    job_id: str
    run_id: str
    folder: str
    """In the pod, absolute."""

    @property
    def state(self) -> str:
        """From the folder on."""
        return f"{STATE}/{self.run_id}"

    def session(self, verb: str, *arguments: str) -> list[str]:
        """The program that has a verb of `pod.sh` done; its standard input begins with SCRIPT."""
        program = shutil.which("ssh")
        if program is None:
            raise CommandError("ssh is not installed", step="Install OpenSSH's client, and put it on your PATH.")
        host = f"{self.job_id}{ssh.SUFFIX}"
        command = [program, *_OPTIONS, *ssh.options(), host, self._remote_command(verb, *arguments)]
        # Ctrl-C is this program's to handle, not the session's
        deaf = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"] if os.name == "posix" else []
        return [*deaf, *command]

    def _remote_command(self, verb: str, *arguments: str) -> str:
        words = shlex.join([verb, self.state, *arguments])
        # sessions have this home; the path may not be where it is on a local stack
        inside = self.folder.removeprefix(f"{ssh.HOME}/")
        folder = f'"$HOME"/{shlex.quote(inside)}' if inside != self.folder else shlex.quote(self.folder)
        return (
            f"cd {folder} || exit; b=/gpudev/bin/busybox; [ -x $b ] || b=; "
            f's="$($b dd bs={len(SCRIPT)} count=1 iflag=fullblock 2>/dev/null)"; set -- {words}; eval "$s"'
        )


def new_run_id() -> str:
    """Of a run that begins."""
    return uuid.uuid4().hex


def job_command(run_id: str, argv: list[str]) -> str:
    """A job's command that waits for the files of a run and then runs what was sent with them."""
    shown = " ".join(shlex.join(argv).split())
    shown = "".join(letter for letter in shown if letter.isprintable())[:_SHOWN_COMMAND]
    return f"# gpudev run {run_id}: {shown}\n{_WAIT.format(state=f'{STATE}/{run_id}')}"


def run_of(job: Job) -> Run | None:
    """The run of a job; None: it was not made by `gpudev run`."""
    begin = _BEGIN.match(job.command or "")
    return Run(job.job_id, begin[1], job.working_dir) if begin and job.working_dir else None


def command_file(argv: list[str]) -> str:
    """What the job's shell reads to run the command: a single word is for the shell, as with ssh."""
    return f'exec "$shell" -c {shlex.quote(argv[0])}\n' if len(argv) == 1 else f"exec {shlex.join(argv)}\n"


def news_of(line: bytes) -> list[str]:
    """The words of a line of `pod.sh`; none: the line is SSH's own."""
    text = line.decode(errors="replace")
    return text.removeprefix(_NEWS).split() if text.startswith(_NEWS) else []
