"""A stack that nobody uses: what it says for itself."""

import asyncio
import re

import httpx
import pytest

from tests.support.stack import running_stack, until

_ALARM = re.compile(
    r'"level": ?"(warning|error|critical)"|\[(WRN|ERR|FTL)\]|\b(WRN|WARN|ERR|WARNING|ERROR|FATAL|PANIC)\b|Traceback'
)
_REST_SECONDS = 45


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_a_stack_at_rest_logs_no_warning() -> None:
    """With every period so short that each of them comes several times."""
    with running_stack(GPUDEV_SWEEP_SECONDS="12", GPUDEV_LINE_SECONDS="2") as stack:

        async def healthy() -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{stack.url}/health")).status_code == 200

        await until(healthy, "health")
        logs = sorted(stack.state.logs.glob("*.log"))
        assert {"auth-1.log", "jobs-1.log", "disks-1.log", "capacity-1.log", "nats.log", "postgres.log"} <= {
            log.name for log in logs
        }
        before = {log: log.stat().st_size for log in logs}
        # the time is what is tested: longer than any session, fetch or connection may be idle
        await asyncio.sleep(_REST_SECONDS)
        said = [
            f"{log.name}: {line}"
            for log in logs
            for line in log.read_bytes()[before[log] :].decode(errors="replace").splitlines()
            if _ALARM.search(line)
        ]
        await until(healthy, "health")
    assert said == []
