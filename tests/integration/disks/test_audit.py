"""Every route of disks that changes something leaves an entry."""

from typing import Any

from shared.audit import audit_endpoint
from shared.contracts.audit import AuditQuery
from shared.database import Database
from tests.support.audited import changing_routes
from tests.support.disks import Stage


async def test_every_change_of_a_disk_leaves_an_entry(disks: Stage, disks_database: Database) -> None:
    user = disks.auth.add_user()

    async def ask(method: str, path: str, body: Any = None) -> None:
        headers = {**user.headers, "X-Forwarded-For": "6.6.6.6, 198.51.100.7"}
        answer = await disks.client.request(method, f"/v1/disks{path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        operation_id = answer.json()["operation_id"]
        for name in ("old", "new"):
            if (await disks.get(user, f"/{name}/operations/{operation_id}")).status_code == 200:
                await disks.ended_operation(user, name, operation_id)

    await ask("POST", "", {"disk_name": "old", "size_gb": 10})
    disk_id = (await disks.get(user, "/old")).json()["disk_id"]
    await ask("POST", "/old/snapshots")
    await ask("POST", "/old/rename", {"new_name": "new"})
    await ask("DELETE", "/new")
    await ask("POST", "/new/restore")
    refused = await disks.client.post("/v1/disks/new/restore", headers=user.headers)
    assert refused.status_code == 409

    query = AuditQuery(limit=50, object=disk_id)
    entries = (await audit_endpoint(disks_database)(query)).entries[::-1]
    assert [(one.action, one.object_name) for one in entries] == [
        ("create_disk", "old"),
        ("create_disk_snapshot", "old"),
        ("rename_disk", "old"),
        ("delete_disk", "new"),
        ("restore_disk", "new"),
    ]
    assert {one.action for one in entries} == changing_routes("disks")
    assert {(one.user_id, one.address, one.object_kind) for one in entries} == {(user.user_id, "198.51.100.7", "disk")}
