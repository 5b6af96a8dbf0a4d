"""The table of phases and facts: all that can ever happen to a job.

What has no entry is refused and changes nothing: a late or repeated message never revives a job, a stale worker never
turns one back. Every change that users or other services may rely on has exactly one event.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from services.jobs.domain import access
from services.jobs.domain.extension import extended
from services.jobs.domain.facts import (
    Cancel,
    CommandEnded,
    DiskFailed,
    DiskReady,
    Expire,
    Extend,
    Fact,
    Granted,
    PodFailed,
    PodGone,
    PodMade,
    PodReady,
    PodRefused,
    PodRestarted,
    PodWaits,
    PortsMoved,
    QueueMoved,
    Revoked,
    Warn,
)
from services.jobs.domain.job import Job, Phase
from services.jobs.domain.transition import Rule, Transition, owner_of
from shared.contracts.jobs import (
    JobCancelRequested,
    JobEnded,
    JobExpiring,
    JobExtended,
    JobLost,
    JobPreparing,
    JobReady,
    JobRequeued,
    JobRestarted,
    JobStarted,
    JobStatus,
)

STOPPING = "stopping"


def transition_of(job: Job, fact: Fact, now: datetime) -> Transition | None:
    """What `fact` makes of `job`; None when it changes nothing: it is stale, repeated or not possible here."""
    rule = TABLE[job.phase].get(type(fact))
    if rule is None or not _concerns_lease(job, fact):
        return None
    changed = rule(job, fact, now)
    if changed.job == job:
        return None
    return Transition(
        replace(changed.job, version=job.version + len(changed.events), revision=job.revision + 1, updated_at=now),
        changed.events,
    )


def _concerns_lease(job: Job, fact: Fact) -> bool:
    if isinstance(fact, Granted):
        return fact.epoch > job.epoch
    epoch: int | None = getattr(fact, "epoch", None)
    return epoch is None or epoch == job.epoch


def _leave_pending(job: Job, fact: DiskReady, _: datetime) -> Transition:
    job = replace(_noted_volume(job, fact), status=JobStatus.QUEUED, detail=None, status_reason=None)
    return Transition(job, (JobReady(**owner_of(job), availability_zone=fact.availability_zone),))


def _note_volume(job: Job, fact: DiskReady, _: datetime) -> Transition:
    return Transition(_noted_volume(job, fact))


def _noted_volume(job: Job, fact: DiskReady) -> Job:
    return replace(job, ebs_volume_id=fact.volume_id, availability_zone=fact.availability_zone)


def _note_position(job: Job, fact: QueueMoved, _: datetime) -> Transition:
    return Transition(
        replace(
            job,
            queue_position=fact.position,
            estimated_start_at=fact.estimated_start_at,
            status_reason=fact.reason or job.status_reason,
        )
    )


def _prepare(job: Job, fact: Granted, now: datetime) -> Transition:
    job = replace(
        _without_pod(job),
        status=JobStatus.PREPARING,
        epoch=fact.epoch,
        node=fact.node,
        granted_at=now,
        queue_position=None,
        estimated_start_at=None,
        status_reason=None,
        detail="making the pod",
    )
    return Transition(job, (JobPreparing(**owner_of(job), node=fact.node, epoch=fact.epoch),))


def _give_back(job: Job, fact: Revoked | PodRefused, _: datetime) -> Transition:
    return Transition(replace(job, requeue_reason=fact.reason, status_reason=fact.reason, detail=STOPPING))


def _requeue(job: Job, fact: PodGone, _: datetime) -> Transition:
    reason = job.requeue_reason or ""
    job = replace(
        _without_pod(job),
        status=JobStatus.QUEUED,
        node=None,
        granted_at=None,
        requeue_reason=None,
        status_reason=f"Queued again: {reason}",
        detail=None,
    )
    return Transition(job, (JobRequeued(**owner_of(job), epoch=fact.epoch, reason=reason),))


def _without_pod(job: Job) -> Job:
    return replace(
        job,
        pod_name=None,
        pod_uid=None,
        node_ip=None,
        node_port=None,
        jupyter_port=None,
        ssh_host_keys=None,
        fault=None,
        fault_since=None,
        pod_ends_at=None,
        restarts=0,
    )


def _note_pod(job: Job, fact: PodMade, now: datetime) -> Transition:
    lives = None if fact.lives_seconds is None else timedelta(seconds=fact.lives_seconds)
    job = replace(
        job,
        pod_name=fact.pod_name,
        pod_uid=fact.pod_uid,
        node_port=fact.node_port,
        jupyter_port=fact.jupyter_port,
        pod_ends_at=None if lives is None else (job.granted_at or now) + lives,
    )
    return Transition(job)


def _note_start(job: Job, fact: PodWaits, now: datetime) -> Transition:
    noted = _note_waiting(job, fact, now).job
    return Transition(replace(noted, status_reason=fact.detail if fact.fault else None))


def _note_waiting(job: Job, fact: PodWaits, now: datetime) -> Transition:
    since = job.fault_since if job.fault == fact.fault else now if fact.fault else None
    return Transition(replace(job, detail=fact.detail, fault=fact.fault, fault_since=since))


def _note_ports(job: Job, fact: PortsMoved, _: datetime) -> Transition:
    if (fact.node_port, fact.jupyter_port) == (job.node_port, job.jupyter_port):
        return Transition(job)
    job = replace(job, node_port=fact.node_port, jupyter_port=fact.jupyter_port, status_reason=fact.reason)
    return Transition(job)


def _note_restart(job: Job, fact: PodRestarted, _: datetime) -> Transition:
    if fact.restarts <= job.restarts:
        return Transition(job)
    text = fact.reason if fact.restarts == 1 else f"{fact.reason}, {fact.restarts} times so far"
    event = JobRestarted(**owner_of(job), restarts=fact.restarts, reason=fact.reason)
    return Transition(replace(job, restarts=fact.restarts, status_reason=text), (event,))


def _begin(job: Job, fact: PodReady, now: datetime) -> Transition:
    """Its time counts from here; it is active at once, or when the Jupyter that it was submitted with answers."""
    launched_at = fact.since or now
    job = replace(
        job,
        node_ip=fact.node_ip,
        launched_at=launched_at,
        fault=None,
        fault_since=None,
        status_reason=None,
        expires_at=launched_at + timedelta(seconds=job.duration_seconds),
    )
    job = access.begin(job, now)
    if job.awaits_jupyter:
        return Transition(replace(job, detail="starting JupyterLab"))
    return _activated(job)


def _activate(job: Job, _: PodReady, __: datetime) -> Transition:
    return _activated(replace(job, jupyter_error=access.NO_ANSWER_YET if job.awaits_jupyter else job.jupyter_error))


def _activated(job: Job) -> Transition:
    started_at, expires_at = job.launched_at, job.expires_at
    assert started_at is not None  # noqa: S101 - set when its time began
    assert expires_at is not None  # noqa: S101 - likewise
    job = replace(job, status=JobStatus.ACTIVE, detail="running")
    event = JobStarted(
        **owner_of(job), node=job.node or "", epoch=job.epoch, started_at=started_at, expires_at=expires_at
    )
    return Transition(job, (event,))


def _then_active(rule: Rule) -> Rule:
    """What settles the wish for Jupyter makes the job active: it starts, and then has it or the reason why not."""

    def settle(job: Job, fact: Any, now: datetime) -> Transition:
        started = _activated(job)
        settled = rule(started.job, fact, now)
        if settled.job == started.job:
            return Transition(job)
        return Transition(settled.job, (*started.events, *settled.events))

    return settle


def _warn(job: Job, fact: Warn, _: datetime) -> Transition:
    assert job.expires_at is not None  # noqa: S101 - every active job has an end
    text = f"Expires in {fact.minutes} minutes, at {job.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    event = JobExpiring(**owner_of(job), expires_at=job.expires_at, minutes_left=fact.minutes)
    return Transition(replace(job, warning=text, warned_minutes=fact.minutes), (event,))


def _extend(job: Job, fact: Extend, now: datetime) -> Transition:
    job = extended(job, seconds=fact.seconds, shown_at=fact.shown_at, now=now)
    assert job.expires_at is not None  # noqa: S101 - every active job has an end
    return Transition(job, (JobExtended(**owner_of(job), expires_at=job.expires_at, extension_seconds=fact.seconds),))


def _finish_command(job: Job, fact: CommandEnded, _: datetime) -> Transition:
    if fact.exit_code == 0:
        return Transition(_ending(job, JobStatus.COMPLETED, exit_code=0))
    reason = f"The command ended with exit code {fact.exit_code}"
    return Transition(_ending(job, JobStatus.FAILED, exit_code=fact.exit_code, failure_reason=reason))


def _fail(job: Job, fact: PodFailed, _: datetime) -> Transition:
    return Transition(_ending(job, JobStatus.FAILED, exit_code=fact.exit_code, failure_reason=fact.reason))


def _expire(job: Job, _: Expire, __: datetime) -> Transition:
    return Transition(_ending(job, JobStatus.EXPIRED, status_reason="Its time is up"))


def _cancel(job: Job, fact: Cancel, _: datetime) -> Transition:
    if job.outcome is JobStatus.CANCELLED:
        return Transition(job)
    job = _ending(job, JobStatus.CANCELLED, exit_code=job.exit_code, status_reason=fact.reason)
    return Transition(job, (JobCancelRequested(**owner_of(job), reason=fact.reason),))


def _ending(
    job: Job,
    outcome: JobStatus,
    *,
    exit_code: int | None = None,
    failure_reason: str | None = None,
    status_reason: str | None = None,
) -> Job:
    return replace(
        job,
        outcome=outcome,
        exit_code=exit_code,
        failure_reason=failure_reason,
        requeue_reason=None,
        status_reason=status_reason or failure_reason,
        detail=STOPPING,
    )


def _cancel_at_once(job: Job, fact: Cancel, now: datetime) -> Transition:
    requested = _cancel(job, fact, now)
    ended = _end(requested.job, PodGone(job.epoch), now)
    return Transition(ended.job, (*requested.events, *ended.events))


def _fail_at_once(job: Job, fact: DiskFailed, now: datetime) -> Transition:
    return _end(_ending(job, JobStatus.FAILED, failure_reason=fact.reason), PodGone(job.epoch), now)


def _hold(job: Job, fact: Revoked, now: datetime) -> Transition:
    if job.outcome is None:
        job = _ending(job, JobStatus.FAILED, failure_reason=f"The node was lost: {fact.reason}")
    assert job.outcome is not None  # noqa: S101 - decided above
    job = replace(job, status=job.outcome, ended_at=now, warning=None, detail="waiting for the lost node to be gone")
    return Transition(job, (JobLost(**owner_of(job), node=job.node or "", epoch=job.epoch, reason=fact.reason),))


def _end(job: Job, _: PodGone, now: datetime) -> Transition:
    assert job.outcome is not None  # noqa: S101 - the table leads here from phases that have one
    job = replace(
        job,
        status=job.outcome,
        ended_at=job.ended_at or now,
        released_at=now,
        queue_position=None,
        estimated_start_at=None,
        warning=None,
        fault=None,
        fault_since=None,
        detail=None,
        jupyter_enabled=False,
        jupyter_token_sealed=None,
    )
    event = JobEnded(
        **owner_of(job),
        ended_at=job.ended_at or now,
        exit_code=job.exit_code,
        failure_reason=job.failure_reason,
        epoch=job.epoch,
    )
    return Transition(job, (event,))


TABLE: Mapping[Phase, Mapping[type[Fact], Rule]] = {
    Phase.PENDING: {
        DiskReady: _leave_pending,
        DiskFailed: _fail_at_once,
        QueueMoved: _note_position,
        Cancel: _cancel_at_once,
    },
    Phase.QUEUED: {
        DiskReady: _note_volume,
        DiskFailed: _fail_at_once,
        QueueMoved: _note_position,
        Granted: _prepare,
        Cancel: _cancel_at_once,
    },
    Phase.PREPARING: {
        DiskReady: _note_volume,
        PodMade: _note_pod,
        PodWaits: _note_start,
        PodReady: _begin,
        PodFailed: _fail,
        PodRefused: _give_back,
        Revoked: _give_back,
        **access.BEFORE_THE_START,
        Cancel: _cancel,
    },
    Phase.STARTING: {
        PodReady: _activate,
        Revoked: _hold,
        **access.WHILE_STARTING,
        **{fact: _then_active(rule) for fact, rule in access.SETTLING_JUPYTER.items()},
        Cancel: _cancel,
    },
    Phase.GIVING_BACK: {PodGone: _requeue, Cancel: _cancel},
    Phase.ACTIVE: {
        CommandEnded: _finish_command,
        PodFailed: _fail,
        PodWaits: _note_waiting,
        PodRestarted: _note_restart,
        PortsMoved: _note_ports,
        Revoked: _hold,
        Warn: _warn,
        Extend: _extend,
        Expire: _expire,
        **access.WHILE_ACTIVE,
        Cancel: _cancel,
    },
    Phase.ENDING: {
        PodGone: _end,
        Revoked: _hold,
        Cancel: _cancel,
    },
    Phase.HELD: {PodGone: _end},
    Phase.ENDED: {},
}
