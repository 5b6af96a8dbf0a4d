"""The gauges of the disks say what the tables do."""

from datetime import timedelta

from prometheus_client import REGISTRY

from services.disks.operations.create import create_disk
from services.disks.operations.measure import measure_operations
from services.disks.settings import DisksSettings
from shared.database import Database
from tests.support.disks import disks_context, new_disk, new_user_id, now


def value(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(f"gpudev_{name}", labels)
    assert found is not None, name
    return found


async def test_an_operation_that_is_not_done_grows_old(disks_settings: DisksSettings, disks_database: Database) -> None:
    asked_at = now()
    later = asked_at
    context = disks_context(disks_settings, disks_database, clock=lambda: later)
    await measure_operations(context)
    assert value("disk_operation_oldest_seconds", action="create") == 0

    await create_disk(context, new=new_disk(new_user_id(), at=asked_at), key=None)
    later = asked_at + timedelta(minutes=20)
    await measure_operations(context)
    assert value("disk_operation_oldest_seconds", action="create") == 20 * 60
    assert value("disk_operation_oldest_seconds", action="purge") == 0
    assert value("work_overdue_seconds", worker="operations") == 20 * 60, "no worker runs here"
