"""Create a disk: from the request to the volume."""

from uuid import UUID

from shared.contracts.disks import DiskCreated
from tests.support.disks import Stage


async def test_a_created_disk_has_one_tagged_volume(disks: Stage) -> None:
    user = disks.auth.add_user()

    answer = await disks.create(user, "my-training-data", size_gb=500)

    assert list(answer) == ["operation_id", "disk_name", "action", "message", "requested_at"]
    assert answer["disk_name"] == "my-training-data"
    assert answer["action"] == "create"
    assert answer["message"] == "Disk creation request queued successfully"
    assert answer["requested_at"].endswith("Z")
    operation = await disks.ended_operation(user, "my-training-data", answer["operation_id"])
    assert operation["status"] == "completed"
    assert operation["error"] is None
    (volume,) = await disks.volumes(user)
    tags = {tag["Key"]: tag["Value"] for tag in volume["Tags"]}
    assert tags == {
        "gpudev:disk-id": operation["disk_id"],
        "gpudev:operation-id": answer["operation_id"],
        "gpudev:user-id": str(user.user_id),
        "Name": "my-training-data",
    }
    assert volume["Size"] == 500
    created = await disks.event(operation["disk_id"], DiskCreated)
    assert created.volume_id == volume["VolumeId"]
    assert created.operation_id == UUID(answer["operation_id"])
