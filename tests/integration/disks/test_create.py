"""Create a disk and read it: the routes, on real servers."""

from uuid import UUID, uuid4

import msgspec
import pytest

from services.disks.operations.create import insert_disk
from services.disks.settings import DisksSettings
from shared.contracts.disks import DiskCreated, DiskOperationFailed
from shared.database import Database
from tests.support.disks import RefusingAws, Stage, disks_context, disks_stage, new_disk
from tests.support.servers import MotoServer


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
        "ebs.csi.aws.com/cluster": "true",
    }
    assert volume["Size"] == 500
    assert volume["Encrypted"]
    created = await disks.event(operation["disk_id"], DiskCreated)
    assert created.volume_id == volume["VolumeId"]
    assert created.operation_id == UUID(answer["operation_id"])


async def test_a_disk_is_shown_to_its_owner_and_to_nobody_else(disks: Stage) -> None:
    owner, other = disks.auth.add_user(), disks.auth.add_user()
    answer = await disks.create(owner, "data")
    operation = f"/operations/{answer['operation_id']}"

    shown = (await disks.get(owner, "/data")).json()
    assert shown["disk_name"] == "data"
    assert shown["user_id"] == owner.username
    assert shown["size_gb"] == 100
    assert (shown["in_use"], shown["reservation_id"], shown["last_used"]) == (False, None, None)
    assert (shown["is_backing_up"], shown["is_deleted"], shown["snapshot_count"]) == (False, False, 0)
    assert (await disks.get(owner, "")).json()["total"] == 1
    assert (await disks.get(other, "")).json() == {"disks": [], "total": 0}
    for path, missing in (("/data", "/data"), (f"/data{operation}", f"/data/operations/{uuid4()}")):
        theirs, nobodys = await disks.get(other, path), await disks.get(disks.auth.add_user(), missing)
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.content == nobodys.content
        assert "not found" in theirs.json()["detail"]
    assert (await disks.get(owner, f"/another{operation}")).status_code == 404
    assert (await disks.get(owner, "/data/operations/op-123-abc")).status_code == 404


async def test_a_taken_name_is_a_conflict_for_its_owner_alone(disks: Stage) -> None:
    owner, other = disks.auth.add_user(), disks.auth.add_user()
    await disks.create(owner, "data")

    again = await disks.client.post("/v1/disks", json={"disk_name": "data"}, headers=owner.headers)

    assert again.status_code == 409
    assert again.json() == {"detail": "Disk 'data' already exists"}
    await disks.create(other, "data")


async def test_a_repeated_request_with_its_key_makes_one_disk(disks: Stage) -> None:
    user = disks.auth.add_user()
    headers = {**user.headers, "Idempotency-Key": "once"}

    first = await disks.client.post("/v1/disks", json={"disk_name": "data"}, headers=headers)
    second = await disks.client.post("/v1/disks", json={"disk_name": "data"}, headers=headers)
    other = await disks.client.post("/v1/disks", json={"disk_name": "more"}, headers=headers)

    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    assert other.status_code == 422
    await disks.ended_operation(user, "data", first.json()["operation_id"])
    assert len(await disks.volumes(user)) == 1


async def test_pages_are_newest_first_and_count_everything(disks: Stage) -> None:
    user = disks.auth.add_user()
    for name in ("a", "b", "c"):
        await disks.create(user, name)

    page = (await disks.get(user, "?limit=2&offset=1")).json()
    beyond = (await disks.get(user, "?offset=7")).json()

    assert [disk["disk_name"] for disk in page["disks"]] == ["b", "a"]
    assert page["total"] == 3
    assert beyond == {"disks": [], "total": 3}


async def test_all_disks_are_listed_to_whoever_asks_for_no_page(disks: Stage, disks_settings: DisksSettings) -> None:
    user = disks.auth.add_user()
    context = disks_context(disks_settings, disks.database)
    for number in range(51):
        async with disks.database.transaction() as tx:
            await insert_disk(tx, context, new_disk(user.user_id, f"disk-{number}", size_gb=10))

    listed = (await disks.get(user, "")).json()

    assert len({disk["disk_id"] for disk in listed["disks"]}) == listed["total"] == 51


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "offset=-1", "include_deleted=perhaps"])
async def test_a_bad_query_is_refused_by_name(disks: Stage, query: str) -> None:
    answer = await disks.get(disks.auth.add_user(), f"?{query}")

    assert answer.status_code == 400
    assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


async def test_a_bad_body_or_path_is_refused(disks: Stage) -> None:
    user = disks.auth.add_user()

    body = await disks.client.post("/v1/disks", json={"disk_name": "data\n", "size_gb": True}, headers=user.headers)
    path = await disks.get(user, "/a.b")

    assert body.status_code == path.status_code == 400
    assert [problem["loc"] for problem in body.json()["detail"]] == [["body", "disk_name"], ["body", "size_gb"]]
    assert path.json()["detail"][0]["loc"] == ["path", "disk_name"]
    assert (await disks.client.get("/v1/disks")).status_code == 401


async def test_what_aws_refuses_for_good_fails_with_a_reason_and_frees_the_name(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    aws = RefusingAws(status=400, code="VolumeLimitExceeded")
    async with aws.serving() as url:
        settings = msgspec.structs.replace(disks_settings, aws_endpoint_url=url)
        async with disks_stage(settings, disks_database, moto_server.client("ec2")) as disks:
            user = disks.auth.add_user()
            answer = await disks.create(user, "data")

            operation = await disks.ended_operation(user, "data", answer["operation_id"])

            assert operation["status"] == "failed"
            assert operation["error"] == "AWS refused (VolumeLimitExceeded): told so"
            failed = await disks.event(operation["disk_id"], DiskOperationFailed)
            assert failed.operation_id == UUID(answer["operation_id"])
            assert failed.job_id is None
            assert (await disks.get(user, "/data")).status_code == 404
            assert (await disks.get(user, "")).json()["total"] == 0
            await disks.create(user, "data")


async def test_a_creation_waits_for_an_aws_that_is_away(disks: Stage, moto_server: MotoServer) -> None:
    user = disks.auth.add_user()
    moto_server.process.stop()
    try:
        answer = await disks.create(user, "data")
        await disks.attempted(answer["operation_id"])
        waiting = (await disks.get(user, f"/data/operations/{answer['operation_id']}")).json()
        listed = (await disks.get(user, "/data")).json()
    finally:
        moto_server.process.start()

    assert (waiting["completed"], waiting["error"]) == (False, None)
    assert listed["status"] == "creating"
    operation = await disks.ended_operation(user, "data", answer["operation_id"])
    assert operation["status"] == "completed"
    assert len(await disks.volumes(user)) == 1


async def test_a_snapshots_id_with_control_characters_is_refused(disks: Stage) -> None:
    user = disks.auth.add_user()
    body = {"disk_name": "data", "from_snapshot": "snap\x00"}
    answer = await disks.client.post("/v1/disks", json=body, headers=user.headers)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (400, ["body", "from_snapshot"])
