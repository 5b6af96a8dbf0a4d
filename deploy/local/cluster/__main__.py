"""`python -m deploy.local.cluster`: runs the Kubernetes simulator in the foreground."""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path

import uvloop

from deploy.local.cluster import fleet
from deploy.local.cluster.simulator import Options, Simulator, StateInUse

_DEMO_NODES = "p5.48xlarge,p5.48xlarge,p4d.24xlarge,p4d.24xlarge"


def main() -> int:
    """Runs until SIGTERM or SIGINT; the exit code is 0 after a clean stop."""
    options = _options()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        simulator = Simulator(options)
    except StateInUse as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    uvloop.run(_serve(simulator, options))
    return 0


async def _serve(simulator: Simulator, options: Options) -> None:
    stop, ready = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    announcement = asyncio.create_task(_announce(ready, options))
    try:
        await simulator.run(stop, ready)
    finally:
        announcement.cancel()


async def _announce(ready: asyncio.Event, options: Options) -> None:
    await ready.wait()
    gc.collect()
    gc.freeze()  # what it starts with stays: looking through all of it again and again holds every request up
    print(f"cluster: {len(options.nodes)} nodes on https://127.0.0.1:{options.port}", flush=True)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.cluster", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="directory that holds everything; kept between runs")
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    parser.add_argument("--kubeconfig", type=Path, help="written when ready; default STATE/kubeconfig")
    parser.add_argument("--nodes", default=_DEMO_NODES, help="instance type of each node, separated by commas")
    parser.add_argument("--watch-window", type=int, default=4096, help="how many changes a watch can resume over")
    parser.add_argument("--back-off", type=float, default=10.0, help="seconds; first back-off of a crashing container")
    parser.add_argument(
        "--image", action="append", default=[], metavar="NAME=DIR", help="an image whose files lie in a directory"
    )
    parser.add_argument(
        "--program",
        action="append",
        default=[],
        metavar="FILE=MODULE",
        help="a Python program: where a container executes a copy of FILE, MODULE's main is called in its place",
    )
    parser.add_argument(
        "--probe",
        action="append",
        default=[],
        metavar="FILE=MODULE",
        help="where a container's probe executes a copy of FILE, MODULE's coroutine probe is asked in its place",
    )
    parser.add_argument(
        "--init",
        action="append",
        default=[],
        metavar="FILE=MODULE",
        help="where an init container executes a copy of FILE, MODULE's function init is called in its place",
    )
    given = parser.parse_args()
    try:
        nodes = fleet.node_names([part.strip() for part in given.nodes.split(",") if part.strip()])
    except ValueError as error:
        parser.error(str(error))
    state = given.state.resolve()
    return Options(
        state=state,
        kubeconfig=given.kubeconfig.resolve() if given.kubeconfig else state / "kubeconfig",
        port=given.port,
        nodes=nodes,
        watch_window=given.watch_window,
        back_off_seconds=given.back_off,
        images={
            name: Path(directory).resolve() for name, _, directory in (entry.partition("=") for entry in given.image)
        },
        programs=_modules(given.program),
        probes=_modules(given.probe),
        inits=_modules(given.init),
    )


def _modules(entries: list[str]) -> dict[Path, str]:
    return {Path(file).resolve(): module for file, _, module in (entry.rpartition("=") for entry in entries)}


if __name__ == "__main__":
    sys.exit(main())
