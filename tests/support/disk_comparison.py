"""What the service shows, its tables and AWS, held against the model."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from services.disks.adapters.ec2 import Ec2
from services.disks.domain.ledger import Findings
from services.disks.operations.orphans import sweep
from services.disks.storage.tables import disks, operations, snapshots
from shared.database import Statement
from tests.support.disk_model import AVAILABLE, COMPLETED, LOST, PURGING, Disk, Operation, Point, differences
from tests.support.disk_walker import REGION, Divergence, Walker, tags_of
from tests.support.disks import User, disks_context, snapshots_of_user, volumes_of

_SETTLING_ROUNDS = 60
_DISKS = Statement(sa.select(disks))
_POINTS = Statement(sa.select(snapshots))
_OPEN = Statement(
    sa.select(operations.c.id, operations.c.action, operations.c.status).where(
        operations.c.status.not_in([sa.literal_column("'completed'"), sa.literal_column("'failed'")])
    )
)


class Comparison(Walker):
    """A walker who looks around."""

    async def look(self, *, everywhere: bool) -> None:
        """Hold what the service shows against the model."""
        for user in self.users:
            await self.look_at_list(user, include_deleted=True)
        if not everywhere:
            return
        for disk in self.model.disks:
            user = self.owner(disk)
            if disk.known and self.model.named(disk.user, disk.name) is disk:
                await self.look_at_points(disk)
                self.expect(await self.get(user, f"/{disk.name}/content"), 200, self.model.content(disk))

    async def look_at_list(self, user: User, *, include_deleted: bool, limit: int = 500) -> None:
        expected = self.model.listed(user.user_id, include_deleted=include_deleted)
        answer = await self.get(user, f"?include_deleted={str(include_deleted).lower()}&limit={limit}")
        self.expect(answer, 200, {"total": len(expected)})
        told = answer.json()["disks"]
        for disk, shown in zip(expected[:limit], told, strict=True):
            wrong = differences(shown, self.model.info(disk))
            if wrong:
                raise Divergence(f"{user.username}'s list shows of {disk.name} (told, expected): {wrong}")

    async def look_at_points(self, disk: Disk) -> None:
        answer = await self.get(self.owner(disk), f"/{disk.name}/snapshots?limit=500")
        expected = self.model.points(disk)
        self.expect(answer, 200, {"total": len(expected)})
        for point, shown in zip(expected, answer.json()["snapshots"], strict=True):
            wrong = differences(shown, point)
            if wrong:
                raise Divergence(f"a snapshot of {disk.name} (told, expected): {wrong}")

    async def see_work(self) -> None:
        """Ask how each open operation goes, and tell the model what has ended."""
        ended: list[tuple[Operation, str]] = []
        for operation in self.model.open_operations():
            user = self.owner(operation.disk)
            answer = await self.get(user, f"/{operation.disk.name}/operations/{operation.id}")
            self.expect(answer, 200, {"operation_id": str(operation.id), "action": operation.action})
            told = answer.json()
            if told["completed"]:
                ended.append((operation, told["status"]))
                self.tally[f"{operation.action} {told['status']}"] += 1
                self.failures += told["status"] == "failed"
        if self.failures > self.faults.refused:
            raise Divergence(f"{self.failures} operations failed, {self.faults.refused} were refused: {ended}")
        for point in self.model.end_operations(ended):
            await self._decide(point)
        for disk in [one for one in self.model.disks if one.state == PURGING]:
            await self._see_purge(disk)

    async def _decide(self, point: Point) -> None:
        """See what has become of a snapshot of which either may be."""
        if point.id in await self._kept_rows():
            point.state = COMPLETED

    async def _kept_rows(self) -> dict[UUID, datetime]:
        """The completed snapshots of the tables: the API hides those of a disk whose name another has."""
        rows = await self.database.fetch_all(_POINTS)
        return {row["id"]: row["created_at"] for row in rows if row["status"] == "completed"}

    async def _see_purge(self, disk: Disk) -> None:
        answer = await self.get(self.owner(disk), "?include_deleted=true&limit=500")
        if str(disk.id) in {one["disk_id"] for one in answer.json()["disks"]}:
            return
        self.model.purged(disk)
        self.tally["disk purged"] += 1
        filters = [{"Name": "tag:gpudev:disk-id", "Values": [str(disk.id)]}]
        volumes = (await asyncio.to_thread(self.cloud.describe_volumes, Filters=filters))["Volumes"]
        taken = (await asyncio.to_thread(self.cloud.describe_snapshots, Filters=filters))["Snapshots"]
        lost = {str(point.id) for point in disk.points if point.state == LOST}
        left = [one["VolumeId"] for one in volumes if one["VolumeId"] not in self.foreign]
        left += [
            one["SnapshotId"]
            for one in taken
            if one["SnapshotId"] not in self.copies and tags_of(one)["gpudev:operation-id"] not in lost
        ]
        if left:
            raise Divergence(f"{disk.id} is purged, and {left} are left of it")

    async def see_adoptions(self, *, certain: bool = False) -> int:
        """Tell the model of lost snapshots that are there again; `certain`: all that can be must be."""
        lost = [point for disk in self.model.disks for point in disk.points if point.state == LOST]
        kept = await self._kept_rows() if lost else {}
        for point in lost:
            if point.id in kept:
                self.model.adopt(point, kept[point.id])
            elif certain and point.disk.state == AVAILABLE:
                raise Divergence(f"never adopted: {point.id}")
        return len(lost) - sum(point.state == LOST for point in lost)

    async def finish(self) -> None:
        for _ in range(_SETTLING_ROUNDS):
            self.model.now += timedelta(seconds=61)
            self.model.begin_purges()
            await self.turn("disk_purge")
            await self.process.work()
            await self.see_work()
            if not self.model.open_operations() and not await self.database.fetch_all(_OPEN):
                return
        left = [dict(row) for row in await self.database.fetch_all(_OPEN)]
        raise Divergence(f"the work does not end: {left}")

    async def sweep(self) -> Findings:
        """Sweep for certain: a turn puts it off when AWS is not to be had."""
        ec2 = Ec2(region=REGION, endpoint_url=self.settings.aws_endpoint_url)
        try:
            return await sweep(disks_context(self.settings, self.database, ec2=ec2, clock=self.clock))
        finally:
            await ec2.close()

    async def findings(self) -> Findings:
        """What a sweep would say, and that it says nothing but the orphans that the walk has made."""
        self.model.now += timedelta(minutes=10)
        findings = await self.sweep()
        wrong = {
            name: value
            for name, value in msgspec.structs.asdict(findings).items()
            if value and not name.startswith("orphan")
        }
        if wrong or not self.foreign <= set(findings.orphan_volumes):
            raise Divergence(f"the sweep found {wrong}, and of {self.foreign} {findings.orphan_volumes}")
        return findings

    async def compare_with_aws(self) -> None:
        volumes, taken = [], []
        for user in self.users:
            volumes += await volumes_of(self.cloud, user.user_id)
            taken += await snapshots_of_user(self.cloud, user.user_id)
        copies = {one["SnapshotId"]: tags_of(one) for one in taken if one["SnapshotId"] in self.copies}
        if copies != self.copies:
            raise Divergence(f"others' copies were touched: {copies} are left of {self.copies}")
        foreign = {one["VolumeId"] for one in volumes} & self.foreign
        if foreign != self.foreign:
            raise Divergence(f"others' volumes were touched: {foreign} are left of {self.foreign}")
        volumes = [one for one in volumes if one["VolumeId"] not in self.foreign]
        own = [one for one in taken if one["SnapshotId"] not in self.copies]
        await self.compare_volumes(volumes)
        await self.compare_snapshots(own)

    async def compare_volumes(self, volumes: list[Any]) -> None:
        expected = {str(d.id): (d.size_gb, d.name, str(d.user)) for d in self.model.disks if d.state == AVAILABLE}
        found = {
            tags_of(one)["gpudev:disk-id"]: (one["Size"], tags_of(one)["Name"], tags_of(one)["gpudev:user-id"])
            for one in volumes
        }
        rows = await self.database.fetch_all(_DISKS)
        ledger = {str(row["id"]): row["volume_id"] for row in rows if row["state"] == "available"}
        if found != expected or len(volumes) != len(expected):
            raise Divergence(f"volumes: AWS has {found} ({len(volumes)}), the model {expected}")
        if ledger != {tags_of(one)["gpudev:disk-id"]: one["VolumeId"] for one in volumes}:
            raise Divergence(f"volumes: the ledger has {ledger}, AWS {volumes}")
        unsettled = [dict(row) for row in rows if row["state"] in {"creating", "purging"}]
        if unsettled:
            raise Divergence(f"disks are not settled: {unsettled}")

    async def compare_snapshots(self, taken: list[Any]) -> None:
        points = [p for disk in self.model.disks for p in disk.points if p.state in {COMPLETED, LOST}]
        expected = {str(p.id): (str(p.disk.id), str(p.disk.user), p.disk.name) for p in points if p.state == COMPLETED}
        orphans = {str(point.id) for point in points if point.state == LOST}
        found, left = {}, set()
        for one in taken:
            tags = tags_of(one)
            if tags["gpudev:operation-id"] in orphans:
                left.add(tags["gpudev:operation-id"])
                continue
            found[tags["gpudev:operation-id"]] = (tags["gpudev:disk-id"], tags["gpudev:user-id"], tags["Name"])
        if found != expected or len(found) + len(left) != len(taken):
            raise Divergence(f"snapshots: AWS has {found} ({len(taken)}), the model {expected}")
        if left != orphans:
            raise Divergence(f"snapshots without a row: AWS has {left}, the model {orphans}")
        rows = await self.database.fetch_all(_POINTS)
        ledger = {str(row["id"]): row["snapshot_id"] for row in rows if row["status"] == "completed"}
        in_aws = {tags_of(one)["gpudev:operation-id"]: one["SnapshotId"] for one in taken}
        if ledger != {key: in_aws[key] for key in found}:
            raise Divergence(f"snapshots: the ledger has {ledger}, AWS {in_aws}")
