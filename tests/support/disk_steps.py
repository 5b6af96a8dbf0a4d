"""The steps of a walk that users and jobs take."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from services.disks.storage.tables import operations
from shared.contracts.disks import ClaimReply, ClaimRequest, Listing, ListingEntry
from shared.database import Statement
from tests.support.disk_comparison import Comparison
from tests.support.disk_model import CONFIRMED, DROPPED, FAILED, PROVISIONAL, Disk, Job
from tests.support.disk_walker import NOTHING, RENAME_SECONDS, WORKER_LEASE, Divergence, Step, split_dice
from tests.support.disks import User, job_ended, job_submitted

_OPERATION_OF = Statement(
    sa.select(operations.c.id).where(operations.c.disk_id == sa.bindparam("disk_id", type_=sa.Uuid))
)


class RequestSteps(Comparison):
    """What users ask."""

    async def do_create(self, step: Step) -> str:
        user = self.user(step)
        name = self.free_name(user, step.dice[1])
        size = self.chosen(step.dice[2], (None, None, 10, 10, 10, 20, 20, 30, 30, 50, 100, 9, 16385))
        source = self._source(user, step.dice[3])
        body: dict[str, Any] = {"disk_name": name}
        if step.dice[4] < 0.03:
            body["disk_name"] = self.chosen(step.dice[4] / 0.03, ("", "a b", "a" * 64, "ä", "a\n"))
        if size is not None:
            body["size_gb"] = size
        if source is not None:
            body["from_snapshot"] = str(source)
        status, made = self.model.judge_create(user.user_id, body["disk_name"], size, source)
        answer = await self.ask(step, user, "POST", "", body)
        self.expect(answer, status, {"disk_name": name, "action": "create"} if status == 200 else None)
        if status == 200:
            shown = await self.get(user, f"/{name}")
            self.model.create(
                disk_id=UUID(shown.json()["disk_id"]),
                operation_id=UUID(answer.json()["operation_id"]),
                user=user.user_id,
                name=name,
                size_gb=made,
                source=source,
            )
        return f"{status} {user.username} {body}"

    def _source(self, user: User, dice: float) -> UUID | None:
        """Mostly none; a snapshot of one's own or of the other's, or one that never was."""
        if dice < 0.5:
            return None
        if dice > 0.98:
            return uuid4()
        anything = dice > 0.85
        points = [
            point
            for disk in self.model.disks
            for point in disk.points
            if anything or (disk.user == user.user_id and disk.known and point.shown)
        ]
        return self.chosen((dice * 7) % 1, points).id if points else None

    async def do_delete(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        status = self.model.judge_idle(user.user_id, name)
        answer = await self.ask(step, user, "DELETE", f"/{name}")
        self.expect(answer, status)
        if status == 200:
            disk = self.model.delete(user.user_id, name, UUID(answer.json()["operation_id"]))
            day = str(disk.delete_date)
            assert answer.json()["message"].endswith(f"Will be deleted on {day}"), answer.text
        return f"{status} {user.username} {name}"

    async def do_restore(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        status = self.model.judge_restore(user.user_id, name)
        taken = self.model.name_is_taken_since(user.user_id, name)
        answer = await self.ask(step, user, "POST", f"/{name}/restore")
        self.expect(answer, status)
        assert taken == (f"named '{name}' since" in answer.text), answer.text
        if status == 200:
            self.model.restore(user.user_id, name, UUID(answer.json()["operation_id"]))
        return f"{status} {user.username} {name}"

    async def do_rename(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        new_name = self.free_name(user, step.dice[2])
        if step.dice[3] < 0.05:
            new_name = self.chosen(step.dice[3] / 0.05, ("", "x y", "z" * 64, "é", "a\n"))
        status = self.model.judge_rename(user.user_id, name, new_name)
        rest = WORKER_LEASE + timedelta(seconds=RENAME_SECONDS)
        answer = await self.ask(step, user, "POST", f"/{name}/rename", {"new_name": new_name}, rest=rest)
        self.expect(answer, status, {"old_name": name, "new_name": new_name} if status == 200 else None)
        if status == 200:
            disk = self.model.rename(user.user_id, name, new_name, UUID(answer.json()["operation_id"]))
            self._check_report(disk, answer.json())
            await self.see_work()
        return f"{status} {user.username} {name} to {new_name}"

    def _check_report(self, disk: Disk, told: dict[str, Any]) -> None:
        """Every snapshot is counted, unless the answer says that not all was done."""
        least = 0 if "errors" in told else len(disk.kept)
        most = sum(point.shown and point.state != FAILED for point in disk.points)
        assert least <= told["snapshots_updated"] <= most, (told, least, most)
        self.tally["rename with errors" if "errors" in told else "rename without errors"] += 1

    async def do_snapshot(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        status = self.model.judge_idle(user.user_id, name)
        answer = await self.ask(step, user, "POST", f"/{name}/snapshots")
        self.expect(answer, status)
        if status == 200:
            disk = self.model.named(user.user_id, name)
            assert disk is not None
            self.model.snapshot(disk, UUID(answer.json()["operation_id"]))
        return f"{status} {user.username} {name}"

    async def do_show(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        disk = self.model.named(user.user_id, name)
        answer = await self.get(user, f"/{name}")
        if disk is None:
            self.expect(answer, 404)
        else:
            self.expect(answer, 200, {**self.model.info(disk), "user_id": user.username})
        return f"{answer.status_code} {user.username} {name}"

    async def do_list(self, step: Step) -> str:
        user = self.user(step)
        await self.look_at_list(user, include_deleted=step.dice[1] < 0.5, limit=1 + int(step.dice[2] * 5))
        return f"200 {user.username}"

    async def do_show_operation(self, step: Step) -> str:
        user = self.user(step)
        if not self.model.operations:
            return NOTHING
        operation = self.chosen(step.dice[1], list(self.model.operations.values()))
        names = sorted(self.model.names(operation.disk))
        name = self.chosen(step.dice[2], [*names, *names, "never"])
        expected = self.model.operation(user.user_id, name, operation.id)
        answer = await self.get(user, f"/{name}/operations/{operation.id}")
        self.expect(answer, 404 if expected is None else 200, expected)
        return f"{answer.status_code} {user.username} {name} {operation.action} {operation.id}"

    async def do_show_points(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        disk = self.model.named(user.user_id, name)
        if disk is None:
            self.expect(await self.get(user, f"/{name}/snapshots"), 404)
            return f"404 {user.username} {name}"
        await self.look_at_points(disk)
        return f"200 {user.username} {name}"

    async def do_show_content(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        disk = self.model.named(user.user_id, name)
        answer = await self.get(user, f"/{name}/content")
        if disk is None:
            self.expect(answer, 404)
            return f"404 {user.username} {name}"
        self.expect(answer, 200, self.model.content(disk))
        return f"200 {user.username} {name}"


class JobSteps(Comparison):
    """What jobs do."""

    async def do_claim(self, step: Step) -> str:
        user = self.user(step)
        name = self.name_of(user, step.dice[1])
        job = Job(uuid4(), user.user_id)
        if step.dice[2] < 0.25 and self.model.jobs:
            job = self.chosen(step.dice[2] / 0.25, self.model.jobs[-8:])
        else:
            self.model.jobs.append(job)
        size = self.chosen(step.dice[3], (None, None, None, None, None, None, None, 10, 20, 9))
        if step.dice[4] < 0.03:
            name = "no name"
        expected, makes = self.model.judge_claim(job, user.user_id, name, size)
        request = ClaimRequest(
            user_id=user.user_id, username=user.username, disk_name=name, job_id=job.id, size_gb=size
        )
        reply = await self._claim(step, user, request)
        kind = "claimed" if reply.refusal is None else reply.refusal.kind
        if kind != expected:
            raise Divergence(f"claim: {reply}, not {expected}")
        if reply.claim is not None:
            await self._claimed(job, user, reply.claim, makes=makes)
        return f"{kind} {user.username} {name} {size} for job {job.id}"

    async def _claim(self, step: Step, user: User, request: ClaimRequest) -> ClaimReply:
        if step.dies_at is None:
            return await self.jobs.claim(user, request.disk_name, job_id=request.job_id, size_gb=request.size_gb)
        return await self.survive(step, lambda: self.process.claim(request))

    async def _claimed(self, job: Job, user: User, claim: Any, *, makes: bool) -> None:
        disk = next((one for one in self.model.disks if one.id == claim.disk_id), None)
        if (disk is None) != makes:
            raise Divergence(f"claim: {claim} of {disk}")
        if disk is None:
            (row,) = await self.database.fetch_all(_OPERATION_OF, disk_id=claim.disk_id)
            disk = self.model.create(
                disk_id=claim.disk_id,
                operation_id=row["id"],
                user=user.user_id,
                name=claim.disk_name,
                size_gb=claim.size_gb,
            )
        job.user = user.user_id
        self.model.claim(job, disk)
        told = (claim.disk_name, claim.size_gb, claim.ready)
        if told != (disk.name, disk.size_gb, disk.ready):
            raise Divergence(f"claim: told {told}, not {(disk.name, disk.size_gb, disk.ready)}")

    def _job(self, dice: float, *states: str) -> Job | None:
        """A job, mostly one whose claim is in one of these states."""
        share, within = split_dice(dice, 0.8)
        jobs = [job for job in self.model.jobs[-20:] if job.disk is not None]
        likely = [job for job in jobs if job.state in states]
        if share and likely:
            return self.chosen(within, likely)
        return self.chosen(within, jobs) if jobs else None

    async def do_submitted(self, step: Step) -> str:
        job = self._job(step.dice[1], PROVISIONAL, DROPPED)
        if job is None or job.disk is None or job.state is None:
            return NOTHING
        owner = next(user for user in self.users if user.user_id == job.user)
        event = job_submitted(owner, job.id, job.disk.id)
        await self._deliver(step, event)
        self.model.submitted(job)
        return f"{job.state} job {job.id} on {job.disk.name}"

    async def do_ended(self, step: Step) -> str:
        job = self._job(step.dice[1], PROVISIONAL, CONFIRMED)
        if job is None or job.disk is None or job.state is None:
            return NOTHING
        disk, used = job.disk, step.dice[2] < 0.7
        owner = next(user for user in self.users if user.user_id == job.user)
        await self._deliver(step, job_ended(owner, job.id, 1 if used else 0))
        if not self.model.ended(job, used=used):
            return f"free job {job.id} on {disk.name}"
        listed = (await self.get(owner, f"/{disk.name}/snapshots?limit=500")).json()["snapshots"]
        taken = [one for one in listed if one["reservation_id"] == str(job.id)]
        if len(taken) != 1:
            raise Divergence(f"{len(taken)} snapshots after job {job.id}")
        self.model.snapshot(disk, UUID(taken[0]["snapshot_id"]), job.id)
        return f"snapshot {taken[0]['snapshot_id']} of {disk.name} after job {job.id}"

    async def _deliver(self, step: Step, event: Any) -> None:
        await self.survive(step, lambda: self.process.handle(event))
        if step.dice[5] < 0.2:
            # the broker delivers at least once
            await self.process.handle(event)

    async def do_tell_content(self, step: Step) -> str:
        job = self._job(step.dice[1], PROVISIONAL, CONFIRMED)
        if job is None or not self.model.disks:
            return NOTHING
        disk = job.disk if step.dice[2] < 0.8 else self.chosen(step.dice[3], self.model.disks)
        assert disk is not None
        size = int(step.dice[4] * 1e9)
        listing = Listing(size, [ListingEntry("runs", "directory", size)])
        # told with the time of the walk
        kept = await self._tell(job.id, disk.id, listing)
        entries = [{"path": "runs", "type": "directory", "size_bytes": size}]
        expected = self.model.tell_content(job, disk, {"size_bytes": size, "entries": entries})
        if kept != expected:
            raise Divergence(f"listing kept: {kept}, not {expected}")
        return f"{'kept' if kept else 'refused'} job {job.id} on {disk.name}"

    async def _tell(self, job_id: UUID, disk_id: UUID, listing: Listing) -> bool:
        endpoint = next(one for one in self.process.parts.rpc if one.request is not ClaimRequest)
        report = endpoint.request(job_id=job_id, disk_id=disk_id, epoch=1, taken_at=self.model.now, listing=listing)
        reply = await endpoint.handler(report)
        return bool(reply.stored)
