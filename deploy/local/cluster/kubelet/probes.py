"""Probes, run for real on this machine."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from deploy.local.cluster.kubelet.execution import CannotExecute, NotRunning, Stream, drained, execute
from deploy.local.cluster.kubelet.instances import Instance
from deploy.local.cluster.machinery.objects import Object

_READ_BYTES = 10_240

Probe = Callable[[Sequence[str], Mapping[str, str]], Awaitable[bool | None]]
"""What a program would answer to arguments in an environment; None: it is to be executed."""


class Prober:
    """Runs one probe of one container instance until cancelled, and reports each change of its verdict.

    Args:
        probe: As the container's spec has it.
        instance: That it is about.
        pod_ip: Where ports are.
        ports: By their names.
        report: Called with a verdict and what the probe has said.
        known: Programs that are not executed, since they answer here, by the content of the file that a probe names.
    """

    def __init__(  # noqa: PLR0917  what a probe is about
        self,
        probe: Object,
        instance: Instance,
        pod_ip: str,
        ports: dict[str, int],
        report: Callable[[bool, str], None],
        known: Mapping[bytes, Probe],
    ) -> None:
        self._probe, self._instance, self._pod_ip, self._ports, self._report = probe, instance, pod_ip, ports, report
        self._known = known

    async def run(self) -> None:
        """Probes on its period; a verdict changes after successThreshold or failureThreshold equal results in a row."""
        await asyncio.sleep(self._probe.get("initialDelaySeconds", 0))
        verdict: bool | None = None
        last, streak = None, 0
        while True:
            result, output = await self.once()
            streak = streak + 1 if result == last else 1
            last = result
            needed = self._probe["successThreshold" if result else "failureThreshold"]
            if streak >= needed and result != verdict:
                verdict = result
                self._report(result, output)
            elif not result and streak >= needed:
                self._report(False, output)
            await asyncio.sleep(self._probe["periodSeconds"])

    async def once(self) -> tuple[bool, str]:
        """One attempt: whether it succeeded, and what it said."""
        try:
            async with asyncio.timeout(self._probe["timeoutSeconds"]):
                if "exec" in self._probe:
                    return await self._exec(self._probe["exec"].get("command") or [])
                if "tcpSocket" in self._probe:
                    return await self._connect(self._probe["tcpSocket"])
                if "httpGet" in self._probe:
                    return await self._get(self._probe["httpGet"])
        except TimeoutError:
            return False, "command timed out" if "exec" in self._probe else "i/o timeout"
        except (OSError, ValueError, EOFError) as error:
            return False, str(error)
        return True, ""  # a kind of probe that is not run here

    async def _exec(self, command: list[str]) -> tuple[bool, str]:
        """In the container, as its child, unless the program answers here: two processes fewer for each start."""
        answer = await self._ask(command)
        if answer is not None:
            return answer, ""
        try:
            execution = await execute(self._instance.directory, command, terminal=False, stdin=False)
        except (CannotExecute, NotRunning) as error:
            return False, str(error)
        output = bytearray()
        try:
            streams = [execution.stdout, *([execution.stderr] if execution.stderr is not None else [])]
            reading = [asyncio.create_task(_collect(stream, output)) for stream in streams]
            try:
                code = await execution.wait()
            finally:
                await drained(reading)
        finally:
            execution.close()
        return code == 0, output[:_READ_BYTES].decode(errors="replace")

    async def _ask(self, command: list[str]) -> bool | None:
        program = self._program(command)
        config = self._instance.config() if program is not None else None
        return None if program is None or config is None else await program(command[1:], config.environment)

    def _program(self, command: list[str]) -> Probe | None:
        try:
            return self._known.get(Path(command[0]).read_bytes()) if self._known and command else None
        except OSError:
            return None  # to execute it tells what is wrong

    async def _connect(self, action: Object) -> tuple[bool, str]:
        _, writer = await asyncio.open_connection(action.get("host") or self._pod_ip, self._port(action))
        writer.close()
        return True, ""

    async def _get(self, action: Object) -> tuple[bool, str]:
        host = action.get("host") or self._pod_ip
        reader, writer = await asyncio.open_connection(host, self._port(action))
        try:
            head = (
                f"GET {action['path']} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode())
            status = int((await reader.readline()).split(b" ", 2)[1])
        except IndexError as error:
            raise ValueError("malformed HTTP response") from error
        finally:
            writer.close()
        return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"  # noqa: PLR2004

    def _port(self, action: Object) -> int:
        port = action["port"]
        return port if isinstance(port, int) else self._ports.get(port) or int(port)


async def _collect(stream: Stream, output: bytearray) -> None:
    """What a probe says, both of its outputs as they come."""
    while data := await stream.read():
        output += data
