"""What SSH over the API costs: `make bench-ssh`.

Bytes of a job's output and input through the ingress and the API beside the direct way to its node, in turns: as fast
as this machine can, where both ends, the ingress and the API share its cores, and over a link of 1 Gbit/s to the node.
Where socat is installed, three of it in a row say what as many programs cost that do nothing but copy.
200 sessions that open at once; what 500 open ones and one whose client takes nothing take of a replica.
"""

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

from deploy.local.cluster.fleet import NODE_ADDRESS
from deploy.local.ports import HOST, free_ports
from gpudev import AsyncClient
from gpudev.tunnel import SshTunnel
from tests.support.stack import ApiUser, LocalStack, running_stack, users

MIB = 1 << 20
ROUNDS = 5
AT_ONCE = 200
ALL = 500
LINK_BYTES = 125_000_000
"""A second, each way."""
LINK_HOST = "127.0.0.2"
"""Where the node is behind the link: the ports are the same."""
_MAX_PACING_RATE = 47
"""SO_MAX_PACING_RATE of Linux, which the module `socket` does not name."""


async def _ssh(stack: LocalStack, *command: str, sends: int = 0) -> float:
    """Seconds that OpenSSH takes for a command, with so many bytes as its input."""
    feeder = f"head -c {sends} /dev/zero | " if sends else ""
    quoted = " ".join(f"'{word}'" for word in command)
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"{feeder}ssh {quoted} > /dev/null", env={**os.environ, "HOME": str(stack.state.root)}
    )
    assert await process.wait() == 0
    return time.perf_counter() - began


def _carry(source: socket.socket, target: socket.socket) -> None:
    target.setsockopt(socket.SOL_SOCKET, _MAX_PACING_RATE, LINK_BYTES)
    piece = memoryview(bytearray(256 << 10))
    with suppress(OSError):
        while size := source.recv_into(piece):
            target.sendall(piece[:size])
        target.shutdown(socket.SHUT_WR)


def _link(port: int) -> socket.socket:
    """A link of LINK_BYTES to a port of the node; close it at the end."""
    listening = socket.create_server((LINK_HOST, port))

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_carry, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listening


@asynccontextmanager
async def _copiers(port: int) -> AsyncIterator[str]:
    """Two socats in a row before a port of the node; the command of a third, for OpenSSH."""
    copier = f"socat -b {256 << 10}"
    async with AsyncExitStack() as running:
        for _ in range(2):
            (free,) = free_ports(1)
            listening = f"TCP-LISTEN:{free},bind={HOST},reuseaddr,fork"
            process = await asyncio.create_subprocess_exec(*copier.split(), listening, f"TCP:{HOST}:{port}")
            running.push_async_callback(process.wait)
            running.callback(process.terminate)
            port = free
        yield f"{copier} - TCP:{HOST}:{port}"


async def _throughput(stack: LocalStack, demo: ApiUser, job_id: str, mib: int, host: str) -> None:
    async with AsyncExitStack() as running:
        port = (await demo.job(job_id))["node_port"]
        config = ["-F", str(stack.state.ssh_config), "-o", "ControlPath=none"]
        common = [*config, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        ways = {
            "direct": [*common, "-p", str(port), f"dev@{host}"],
            "API": [*common, "-o", f"ProxyCommand={stack.state.command} proxy %n", f"dev@{job_id}.gpudev"],
        }
        if host == NODE_ADDRESS and shutil.which("socat"):
            copiers = await running.enter_async_context(_copiers(port))
            ways["three socats"] = [*common, "-o", f"ProxyCommand={copiers}", f"dev@{host}"]
        await _compare(stack, ways, mib, host)


async def _compare(stack: LocalStack, ways: dict[str, list[str]], mib: int, host: str) -> None:
    work: dict[str, Callable[[list[str]], Awaitable[float]]] = {
        "from the job": lambda way: _ssh(stack, *way, f"head -c {mib * MIB} /dev/zero"),
        "to the job": lambda way: _ssh(stack, *way, "cat > /dev/null", sends=mib * MIB),
    }
    starts = {name: min([await _ssh(stack, *way, "true") for _ in range(2)]) for name, way in ways.items()}
    for what, run in work.items():
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                rates[name].append(mib / max(await run(way) - starts[name], 0.001))
        found = {name: statistics.median(each) for name, each in rates.items()}
        told = (f"{name} {rate:.0f} MB/s ({rate / found['direct']:.0%})" for name, rate in found.items())
        print(f"{what} at {host}: {', '.join(told)}", flush=True)


async def _raw(stack: LocalStack, demo: ApiUser, job_id: str) -> None:
    """Handshakes: from the request to the first bytes of the job's SSH server."""

    async def one() -> tuple[float, float, SshTunnel]:
        began = time.perf_counter()
        tunnel = SshTunnel(f"ws{stack.url.removeprefix('http')}/v1/jobs/{job_id}/ssh", demo.key)
        await tunnel.__aenter__()
        opened = time.perf_counter() - began
        assert await tunnel.read()
        return opened, time.perf_counter() - began, tunnel

    done = await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    for number, what in enumerate(("open", "have heard from the job")):
        times = sorted(one[number] for one in done)
        p50, p99 = times[AT_ONCE // 2], times[int(AT_ONCE * 0.99)]
        print(f"{AT_ONCE} at once {what}: p50 {p50:.2f} s, p99 {p99:.2f} s", flush=True)
    for *_, tunnel in done:
        await tunnel.__aexit__(None, None, None)


async def _many(stack: LocalStack, demo: ApiUser, job_id: str) -> None:
    """What sessions take of a replica that all are open, and nothing comes or goes."""
    pid = stack.parts()["jobs-1"].pid
    before = _taken(pid)
    async with AsyncClient(stack.url, demo.key) as client, AsyncExitStack() as opened:
        for _ in range(ALL // 50):
            tunnels = [client.open_ssh(job_id) for _ in range(50)]
            await asyncio.gather(*(opened.enter_async_context(one) for one in tunnels))
        more = {name: value - before[name] for name, value in _taken(pid).items()}
        print(f"{ALL} sessions take of a replica: {more}", flush=True)


def _taken(pid: int) -> dict[str, int]:
    process = Path(f"/proc/{pid}")
    return {
        "MiB": round(_resident(pid)),
        "threads": len(list((process / "task").iterdir())),
        "files": len(list((process / "fd").iterdir())),
    }


def _resident(pid: int) -> float:
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def _unread(stack: LocalStack, demo: ApiUser, job_id: str) -> None:
    """A client that takes nothing of much: who holds it."""
    pid = stack.parts()["jobs-1"].pid
    before = _resident(pid)
    async with AsyncClient(stack.url, demo.key) as client, client.open_ssh(job_id) as tunnel:
        await tunnel.read()
        way = f"{stack.state.command} proxy %n"
        process = await asyncio.create_subprocess_exec(
            *("ssh", "-F", str(stack.state.ssh_config), "-o", "ControlPath=none", "-o", f"ProxyCommand={way}"),
            *(f"dev@{job_id}.gpudev", "head -c 1000000000 /dev/zero"),
            stdout=asyncio.subprocess.PIPE,
        )
        await asyncio.sleep(15)
        print(f"a session whose client takes nothing: {_resident(pid) - before:.0f} MiB more", flush=True)
        process.kill()
        await process.communicate()


@asynccontextmanager
async def _active_job(**settings: str) -> AsyncIterator[tuple[LocalStack, ApiUser, str]]:
    """A stack of its own, with a job, and the command line logged in."""
    with running_stack(**settings) as stack:
        async with users(stack, "demo") as (demo,):
            job_id = await demo.submit(gpu_count=1, github_user=demo.name)
            await demo.wait(job_id, "active")
            login = await asyncio.create_subprocess_exec(str(stack.state.command), "login")
            assert await login.wait() == 0
            yield stack, demo, job_id


async def main(mib: int) -> None:
    """Measure all of it."""
    async with _active_job(GPUDEV_MAX_SSH_SESSIONS=str(ALL)) as (stack, demo, job_id):
        await _raw(stack, demo, job_id)
        await _many(stack, demo, job_id)
        await _throughput(stack, demo, job_id, mib, NODE_ADDRESS)
        await _unread(stack, demo, job_id)
    async with _active_job(GPUDEV_NODE_HOST=LINK_HOST) as (stack, demo, job_id):
        with closing(_link((await demo.job(job_id))["node_port"])):
            await _throughput(stack, demo, job_id, mib, LINK_HOST)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=256, help="Bytes of one transfer.")
    asyncio.run(main(parser.parse_args().mib))
