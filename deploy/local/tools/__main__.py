"""`gpudev` on the local stack: the twin of the tools image's program (deploy/images/tools/README.md)."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # run by its path: an isolated interpreter knows no other

from deploy.local.tools.pod import Pod, write_private

_USAGE = (
    "usage: gpudev install DIR | run [--in DIR] [--list DIR] [--await SECONDS] [-- ARGV...] | ready | keys | host-keys"
    " | jupyter start|stop | listing DIR"
)


def main(arguments: list[str]) -> int:
    """One call; its exit code."""
    pod = Pod()
    match arguments:
        case ["install", directory]:
            from deploy.local.tools.image import install  # noqa: PLC0415

            install(pod.inside(directory))
        case ["run", *rest] if (wanted := _wanted(rest)) is not None:
            return _run(pod, wanted)
        case ["ready"]:
            return _ready(pod)
        case ["keys"]:
            write_private(pod.authorized_keys, _standard_input())
        case ["host-keys"]:
            print(pod.public_host_key.read_text(), end="")
        case ["jupyter", ("start" | "stop") as wish]:
            return _jupyter(pod, wish)
        case ["listing", directory]:
            return _listing(pod.inside(directory))
        case _:
            print(_USAGE, file=sys.stderr)
            return 2
    return 0


def _standard_input(otherwise: bytes | None = None) -> bytes:
    """What follows the line that says its length; `otherwise` where there is no input at all."""
    line = sys.stdin.buffer.readline()
    if not line and otherwise is not None:
        return otherwise
    length = int(line)
    data = sys.stdin.buffer.read(length)
    if len(data) != length:
        raise EOFError("standard input is cut off")
    return data


def _wanted(arguments: list[str]) -> "dict[str, list[str]] | None":
    """The options of `run` and the command behind them, each by its name; None when they are none."""
    wanted: dict[str, list[str]] = {"--in": [], "--list": [], "--await": [], "--": []}
    while arguments:
        name, *rest = arguments
        if name not in wanted or not rest:
            return None
        wanted[name], arguments = (rest, []) if name == "--" else (rest[:1], rest[1:])
    return wanted


def _run(pod: Pod, wanted: dict[str, list[str]]) -> int:
    from deploy.local.tools.first_process import FirstProcess  # noqa: PLC0415

    directory, listed, argv = wanted["--in"], wanted["--list"], wanted["--"]
    patience = wanted["--await"]
    return FirstProcess(
        pod,
        argv,
        directory=directory[0] if directory else None,
        listed=listed[0] if listed else None,
        patience_seconds=int(patience[0]) if patience else 0,
    ).run()


def _ready(pod: Pod) -> int:
    from deploy.local.tools.ready import answers  # noqa: PLC0415

    return 0 if answers(pod) else 1


def _jupyter(pod: Pod, wish: str) -> int:
    from deploy.local.tools.jupyter import Jupyter, StartError  # noqa: PLC0415

    jupyter = Jupyter(pod)
    given = json.loads(_standard_input(b"{}" if wish == "stop" else None))
    try:
        if wish == "stop":
            jupyter.stop(given.get("wish", 0))
        else:
            jupyter.start(str(given["token"]), given.get("wish", 0))
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _listing(directory: Path) -> int:
    from deploy.local.tools.listing import list_tree  # noqa: PLC0415

    try:
        print(json.dumps(list_tree(directory)))
    except OSError as error:
        print(f"{error.strerror}: {directory}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
