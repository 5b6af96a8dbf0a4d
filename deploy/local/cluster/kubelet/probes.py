"""Probes, run for real on this machine."""

import asyncio
import os
import signal
from collections.abc import Callable

from deploy.local.cluster.kubelet.instances import Config
from deploy.local.cluster.machinery.objects import Object

_READ_BYTES = 10_240


class Prober:
    """Runs one probe of one container instance until cancelled, and reports each change of its verdict."""

    def __init__(
        self, probe: Object, config: Config, pod_ip: str, ports: dict[str, int], report: Callable[[bool, str], None]
    ) -> None:
        self._probe, self._config, self._pod_ip, self._ports, self._report = probe, config, pod_ip, ports, report

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
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._config.environment,
            cwd=self._config.working_directory,
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.returncode == 0, output[:_READ_BYTES].decode(errors="replace")

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
