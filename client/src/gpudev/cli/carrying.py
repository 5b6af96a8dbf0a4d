"""Sending a folder into a run's job, and bringing back what it made."""

import subprocess
import tarfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from gpudev.cli.ending import CommandError
from gpudev.cli.folder import Entry, write_archive
from gpudev.cli.pod import MARK, SCRIPT, Run, command_file, news_of

_LINE_BYTES = 1 << 16


class LineLost(Exception):
    """The session ended before it was through; the text says what SSH said."""


class _Session:
    """A verb of `pod.sh` with its streams."""

    def __init__(self, run: Run, verb: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - OpenSSH
            run.session(verb), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if not (self._process.stdin and self._process.stdout and self._process.stderr):
            raise RuntimeError("a session has all three streams")
        self.stdin: IO[bytes] = self._process.stdin
        self.stdout: IO[bytes] = self._process.stdout
        self._stderr: IO[bytes] = self._process.stderr
        self._lines: list[bytes] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> "_Session":  # noqa: PYI034 - typing.Self is newer than Python 3.10
        self._listener.start()
        with suppress(BrokenPipeError):  # its exit code tells
            self.stdin.write(SCRIPT)
            self.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self.stdin.close()
        self.stdout.close()
        self._listener.join()
        self._stderr.close()

    def end(self) -> list[list[str]]:
        """Its news, once it has ended well.

        Raises:
            LineLost: It has not.
        """
        with suppress(BrokenPipeError):
            self.stdin.close()
        code = self._process.wait()
        self._listener.join()
        news = [words for words in map(news_of, self._lines) if words]
        if code:
            own = [line.decode(errors="replace").strip() for line in self._lines if not news_of(line)]
            raise LineLost("\n".join(own) or f"the session ended with {code}")
        return news

    def _listen(self) -> None:
        self._lines.extend(self._stderr)


def send(
    run: Run, folder: Path, entries: Sequence[Entry], *, argv: list[str], outs: list[str], keep: bool, reads: bool
) -> None:
    """Send files and command; the command starts when all is there.

    Args:
        run: Whose.
        folder: That the entries are of.
        entries: To send.
        argv: The command.
        outs: Paths to bring back at its end.
        keep: The job is to live on then.
        reads: The command has a standard input.

    Raises:
        LineLost: It did not get there whole.
    """
    state = {
        "pod.sh": SCRIPT.decode(),
        "command": command_file(argv),
        "outs": "".join(f"{path}\n" for path in outs),
        **({"keep": ""} if keep else {}),
        **({"stdin": ""} if reads else {}),
        "go": "",
    }
    with _Session(run, "receive") as session:
        with suppress(BrokenPipeError):  # the session's end says why
            write_archive(
                session.stdin, folder, iter(entries), {f"{run.state}/{name}": text for name, text in state.items()}
            )
        if ["started"] not in session.end():
            raise LineLost("what was sent did not arrive whole")


def bring_back(run: Run, folder: Path) -> list[str]:
    """Bring back what was asked for; the paths that there are not.

    Raises:
        LineLost: Not all of it came.
    """
    with _Session(run, "fetch") as session:
        _skip_to_mark(session.stdout)
        first = session.stdout.peek(1) if hasattr(session.stdout, "peek") else b""
        if first:
            try:
                with tarfile.open(fileobj=session.stdout, mode="r|") as archive:
                    archive.extractall(folder, filter="data")
            except tarfile.FilterError as error:
                raise CommandError(f"What came back is not taken: {error}") from None
            except (tarfile.TarError, EOFError) as error:
                raise LineLost(str(error)) from None
            while session.stdout.read(_LINE_BYTES):
                pass
        return [" ".join(path) for name, *path in session.end() if name == "missing"]


def finish(run: Run) -> bool:
    """Let the job end; whether it is kept."""
    with _Session(run, "finish") as session:
        return ["kept"] in session.end()


def _skip_to_mark(stream: IO[bytes]) -> None:
    while (line := stream.readline(_LINE_BYTES)) and not line.endswith(MARK):
        pass
