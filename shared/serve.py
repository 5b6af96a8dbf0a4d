"""Run one replica of a service: `python -m shared.serve <service>`.

It serves HTTP on GPUDEV_HTTP_PORT and metrics on GPUDEV_METRICS_PORT until SIGTERM. Then, one after the other:

1. Readiness says 503 for GPUDEV_DRAIN_SECONDS, so that whoever balances the load has the time to notice. Requests that
   still come are served; each answer asks for the end of its connection.
2. Answers that are held end: followed logs with the end of their text, `Prefer: wait` with the present state.
3. WebSockets go on until they end, or until GPUDEV_SESSION_SECONDS are over: nobody could take them up elsewhere.
4. The listener is closed, and requests under way are served to their end.
5. The application shuts down: loops end, leases and leader locks are given back, connections are closed.

SIGINT, and any second signal, leave out the waits of the first and the third step.
"""

import argparse
import asyncio
import gc
import importlib
import resource
import signal
import sys
from contextlib import suppress

import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from litestar import Litestar
from prometheus_client import start_http_server

from shared.background import cancel_all
from shared.routes import SERVICES
from shared.settings import CommonSettings, SettingsError, read_settings
from shared.web.app import DRAIN
from shared.web.drain import Drain

log = structlog.get_logger(__name__)

CUT_SECONDS = 3.0
"""In which WebSockets that have to end say goodbye."""
_YOUNG_OBJECTS = 2_000
"""That are made before the young ones are looked at, while every request waits: 1 ms, of 10,000 it was 5. Requests free
nearly all of theirs by themselves."""
FINISH_SECONDS = 10.0
"""For requests that are under way when the listener is closed."""


class Stop:
    """What signals ask of the process."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def listen(self) -> None:
        """Take SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._receive, number)

    def _receive(self, number: signal.Signals) -> None:
        if self.asked.is_set() or number == signal.SIGINT:
            self.at_once.set()
        self.asked.set()


async def serve(service: str, settings: CommonSettings) -> None:
    """Run the service until a signal, and bring it to its end.

    Raises:
        OSError: The metrics port is taken. On one HTTP port several replicas may listen, and share what comes.
        SettingsError: A setting of the service is missing or wrong.
    """
    stop = Stop()
    stop.listen()
    _take_all_files()
    app: Litestar = importlib.import_module(f"services.{service}.app").create_app()
    start_http_server(settings.metrics_port, settings.host)
    async with app.lifespan():
        server = _server(app, settings)
        _keep_what_is_there()
        serving = asyncio.create_task(server.serve())
        asked = asyncio.create_task(stop.asked.wait())
        await asyncio.wait([serving, asked], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            asked.cancel()
            serving.result()
            raise OSError("the HTTP server has ended by itself")
        await _drain(app.state[DRAIN], stop, settings.drain_seconds)
        await _await_sessions(app.state[DRAIN], stop, settings.session_seconds)
        await _finish(server, serving)


def _server(app: Litestar, settings: CommonSettings) -> Server:
    return Server(
        app,
        address=settings.host,
        port=settings.http_port,
        # the application's lifespan is ours: it has to outlast the last request
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=round(1000 * settings.head_seconds)),
        websockets=True,
        backlog=1024,
        log_level=LogLevels.error,
    )


def _take_all_files() -> None:
    """Open as many files as the process may.

    The first limit is 1,024 in many containers, and 500 sessions of SSH take two connections each.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _keep_what_is_there() -> None:
    """Take all that the start has made, which stays, out of garbage collection.

    A collection looks at all objects that are not, 140,000 of them, and every request waits for it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


async def _drain(drain: Drain, stop: Stop, seconds: float) -> None:
    log.info("draining", seconds=seconds)
    drain.begin()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.at_once.wait()
    drain.release()


async def _await_sessions(drain: Drain, stop: Stop, seconds: float) -> None:
    ended = asyncio.create_task(drain.sessions_ended())
    at_once = asyncio.create_task(stop.at_once.wait())
    await asyncio.wait([ended, at_once], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    drain.cut_off()
    await asyncio.wait([ended], timeout=CUT_SECONDS)
    await cancel_all([ended, at_once])


async def _finish(server: Server, serving: "asyncio.Task[None]") -> None:
    server.stop()  # type: ignore[no-untyped-call]
    await asyncio.wait([serving], timeout=FINISH_SECONDS)
    if not serving.done():
        log.warning("requests_cut_off", seconds=FINISH_SECONDS)


def main(arguments: list[str] | None = None) -> None:
    """Entry of `python -m shared.serve`."""
    parser = argparse.ArgumentParser(prog="python -m shared.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("service", choices=SERVICES)
    service = parser.parse_args(arguments).service
    try:
        uvloop.run(serve(service, read_settings(CommonSettings)))
    except (SettingsError, OSError) as error:
        sys.exit(f"{service} does not start: {error}")


if __name__ == "__main__":
    main()
