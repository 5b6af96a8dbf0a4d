"""What SSH over the API costs: `make bench-ssh`.

Bytes of a job's output and input through the ingress and the API beside the direct way to its node, in turns; 200
sessions that open at once; what a replica keeps of a session whose client takes nothing.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gpudev import AsyncClient
from gpudev.tunnel import SshTunnel
from tests.support.stack import ApiUser, LocalStack, running_stack, users

MIB = 1 << 20
ROUNDS = 5
AT_ONCE = 200


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


async def _throughput(stack: LocalStack, demo: ApiUser, job_id: str, mib: int) -> None:
    job = await demo.job(job_id)
    common = ["-F", str(stack.state.ssh_config), "-o", "ControlPath=none"]
    ways = {
        "direct": [*common, "-p", str(job["node_port"]), f"dev@{job['node_ip']}"],
        "API": [*common, "-o", f"ProxyCommand={stack.state.command} proxy %n", f"dev@{job_id}.gpudev"],
    }
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
        ratio = found["API"] / found["direct"]
        print(f"{what}: {found['API']:.0f} MB/s, direct {found['direct']:.0f} MB/s, {ratio:.0%}", flush=True)


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


async def main(mib: int) -> None:
    """Measure all of it on a stack of its own."""
    with running_stack(GPUDEV_MAX_SSH_SESSIONS="500") as stack:
        async with users(stack, "demo") as (demo,):
            job_id = await demo.submit(gpu_count=1, github_user=demo.name)
            await demo.wait(job_id, "active")
            login = await asyncio.create_subprocess_exec(str(stack.state.command), "login")
            assert await login.wait() == 0
            await _raw(stack, demo, job_id)
            await _throughput(stack, demo, job_id, mib)
            await _unread(stack, demo, job_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=256, help="Bytes of one transfer.")
    asyncio.run(main(parser.parse_args().mib))
