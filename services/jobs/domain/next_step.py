"""The reconciler's decision: a job and what was just seen of its pod, to the one next step."""

from datetime import datetime, timedelta
from typing import TypeAlias

import msgspec

from services.jobs.domain.facts import (
    CommandEnded,
    Expire,
    Fact,
    PodFailed,
    PodReady,
    PodRefused,
    PodRestarted,
    PodWaits,
    Warn,
)
from services.jobs.domain.job import Job, JobUser, KeptLog, Phase, UserState
from services.jobs.domain.pod import SSHD_PATIENCE
from services.jobs.domain.pod_facts import Fault, PodFacts, PodState, with_cause

WARNING_MINUTES = (30, 15, 5)
_NO_LOG = KeptLog()
_OVER = frozenset({PodState.EXITED, PodState.FAILED})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long trouble may last before it decides."""

    image_fault_seconds: float = 60.0
    refusal_seconds: float = 60.0
    unschedulable_seconds: float = 10.0
    prepare_seconds: float = 3600.0
    """From the lease to readiness, a slow pull of a large image included."""
    jupyter_seconds: float = 90.0
    """How long a job that was submitted with Jupyter is held back until that answers."""
    resync_seconds: float = 5.0
    """Between two looks at a job when nothing asks for one."""
    log_tries: int = 2
    """How often a log may fail to be had: a node that is dead must not hold up the end of its job."""

    def patience(self, fault: str | None) -> float:
        """Seconds that this kind of fault may last."""
        return {
            Fault.FINAL.value: 0.0,
            Fault.UNSCHEDULABLE.value: self.unschedulable_seconds,
            Fault.REFUSED.value: self.refusal_seconds,
            Fault.VOLUME.value: self.prepare_seconds,
        }.get(fault or "", self.image_fault_seconds)


class Make(msgspec.Struct, frozen=True):
    """Make, or adopt, the Secret, the Pod and the Service."""


class FetchKeys(msgspec.Struct, frozen=True):
    """Have the SSH keys of the first user, so that they are in the pod from its start."""

    user: JobUser


class Record(msgspec.Struct, frozen=True):
    fact: Fact


class AskNode(msgspec.Struct, frozen=True):
    """The pod was deleted, not by us: end the job, with what its node has to do with it."""

    exit_code: int | None = None
    disruption: str | None = None
    """What the cluster said of it on the pod, for a person."""


class Keep(msgspec.Struct, frozen=True):
    """Store the end of the log: with the pod it will be gone."""

    final: bool
    """The command has ended: nothing more will come."""


class Delete(msgspec.Struct, frozen=True):
    """Tell what is on the job's disk, then ask for the deletion of exactly this pod."""

    uid: str
    last_message: str | None = None
    """What its container left at its end; None while it runs."""


class Clear(msgspec.Struct, frozen=True):
    """The pod is gone: remove what may be left of its Secret and Service, then say so."""


class Rest(msgspec.Struct, frozen=True):
    """Nothing to do before `until`, unless something happens."""

    until: datetime


Step: TypeAlias = Make | FetchKeys | Record | AskNode | Keep | Delete | Clear | Rest


def next_step(job: Job, pod: PodFacts | None, now: datetime, limits: Limits, log: KeptLog = _NO_LOG) -> Step:
    """What to do for a job that has a lease.

    Args:
        job: As it was last read or written.
        pod: From a live look just now; None when there is none.
        now: The time.
        limits: How long trouble may last.
        log: What is stored of it, of a job that `is_stopping`; of others it does not matter.
    """
    phase = job.phase
    if is_stopping(job):
        return _stop(job, pod, now, limits, log)
    if phase is Phase.PREPARING:
        return _prepare(job, pod, now, limits)
    if phase is Phase.STARTING:
        return _await_jupyter(job, pod, now, limits)
    if phase is Phase.ACTIVE:
        return _next_of_active(job, pod, now, limits)
    return _rest(now, limits)


def is_stopping(job: Job) -> bool:
    """Its pod is to be deleted."""
    return job.phase in {Phase.GIVING_BACK, Phase.ENDING, Phase.HELD}


def _stop(job: Job, pod: PodFacts | None, now: datetime, limits: Limits, log: KeptLog) -> Step:
    if pod is None:
        return Clear()
    if pod.deleting:
        return _rest(now, limits)
    over = pod.state in _OVER
    if _wants_log(job, pod, limits, log) and not log.final and (over or not log.kept):
        return Keep(final=over)
    return Delete(pod.uid, pod.last_message)


def _wants_log(job: Job, pod: PodFacts, limits: Limits, log: KeptLog) -> bool:
    began = pod.began or job.launched_at is not None
    return began and job.phase is not Phase.GIVING_BACK and log.tries < limits.log_tries


def judge_refusal(job: Job, reason: str, now: datetime, limits: Limits) -> PodWaits | PodFailed:
    """What it means that Kubernetes has just refused an object of a job that is being prepared."""
    detail = with_cause("Kubernetes refuses to create the job's pod", reason)
    since = job.fault_since if job.fault == Fault.REFUSED.value else None
    if since is not None and now >= since + timedelta(seconds=limits.refusal_seconds):
        return PodFailed(job.epoch, detail)
    return PodWaits(job.epoch, detail, Fault.REFUSED.value)


def _prepare(job: Job, pod: PodFacts | None, now: datetime, limits: Limits) -> Step:
    began = pod is not None and pod.began
    if not began and job.granted_at is not None and now > job.granted_at + timedelta(seconds=limits.prepare_seconds):
        minutes = round(limits.prepare_seconds / 60)
        return Record(PodFailed(job.epoch, f"The job could not be started within {minutes} minutes: {job.detail}"))
    if pod is None or pod.deleting:
        if job.pod_uid is None:
            return _make(job) if pod is None else _rest(now, limits)
        return Record(PodRefused(job.epoch, "The pod was deleted before it was ready"))
    if job.pod_uid is None:
        return Make()
    if pod.uid != job.pod_uid:
        return Record(PodRefused(job.epoch, "The pod was replaced by another"))
    return _start(job, pod, now, limits)


def _make(job: Job) -> Step:
    # once only: keys that cannot be had now do not hold the job up
    untried = next((user for user in job.users if user.state is UserState.REQUESTED), None)
    return Make() if untried is None else FetchKeys(untried)


def _start(job: Job, pod: PodFacts, now: datetime, limits: Limits) -> Step:
    if pod.state is PodState.READY or (pod.began and pod.state in _OVER) or _runs_without_ssh(pod, now):
        # a command may end before anyone saw it ready: it has started all the same, and its end is the next step
        return Record(PodReady(job.epoch, pod.host_ip, _started_at(job, pod, now)))
    if pod.state is PodState.FAILED:
        return Record(PodFailed(job.epoch, pod.detail, pod.exit_code))
    if pod.state is PodState.REFUSED:
        return Record(PodRefused(job.epoch, pod.detail))
    return _await_start(job, pod, now, limits)


def _runs_without_ssh(pod: PodFacts, now: datetime) -> bool:
    return pod.began and pod.began_at is not None and now >= pod.began_at + SSHD_PATIENCE


def _started_at(job: Job, pod: PodFacts, now: datetime) -> datetime | None:
    """When sshd first answered, by the node's clock, or its patience was over; None: now.

    Seen late, a start is as early as it was; what a wrong clock says lies between the lease and now.
    """
    moments = [pod.ready_at] if pod.ready_at else []
    moments += [pod.began_at + SSHD_PATIENCE] if pod.began_at else []
    started_at = max(min([*moments, now]), min(job.granted_at or now, now))
    return started_at if started_at < now else None


def _await_start(job: Job, pod: PodFacts, now: datetime, limits: Limits) -> Step:
    fault = pod.fault.value if pod.fault else None
    if (job.detail, job.fault) != (pod.detail, fault):
        return Record(PodWaits(job.epoch, pod.detail, fault))
    if fault is None or job.fault_since is None:
        return _rest(now, limits, pod.began_at + SSHD_PATIENCE if pod.began_at else None)
    given_up_at = job.fault_since + timedelta(seconds=limits.patience(fault))
    if now < given_up_at:
        return Rest(min(given_up_at, now + timedelta(seconds=limits.resync_seconds)))
    if pod.fault is Fault.UNSCHEDULABLE:
        return Record(PodRefused(job.epoch, pod.detail))
    return Record(PodFailed(job.epoch, pod.detail))


def _await_jupyter(job: Job, pod: PodFacts | None, now: datetime, limits: Limits) -> Step:
    """Hold back that the job is active until Jupyter answers; who asks Jupyter is not the reconciler (`access.py`)."""
    until = min((job.jupyter_requested_at or now) + timedelta(seconds=limits.jupyter_seconds), job.expires_at or now)
    runs = pod is not None and pod.uid == job.pod_uid and not pod.deleting
    if pod is not None and runs and pod.state not in _OVER and pod.state is not PodState.REFUSED and now < until:
        return Rest(min(until, now + timedelta(seconds=limits.resync_seconds)))
    # whatever else has become of it is for an active job: its command ran, so it is not made again
    return Record(PodReady(job.epoch, job.node_ip))


def _next_of_active(job: Job, pod: PodFacts | None, now: datetime, limits: Limits) -> Step:
    if pod is None or (job.pod_uid is not None and pod.uid != job.pod_uid):
        return AskNode()
    # the command's own end comes before the clock's: a command that made it in time is not called expired
    end = _own_end(job, pod)
    if end is not None:
        return end
    if job.expires_at is not None and now >= job.expires_at:
        return Record(Expire(job.epoch))
    fact = _new_fact(job, pod, now)
    return (
        Record(fact)
        if fact is not None
        else Rest(min(now + timedelta(seconds=limits.resync_seconds), _next_moment(job, now)))
    )


def _new_fact(job: Job, pod: PodFacts, now: datetime) -> Fact | None:
    """What an active job's owner does not know yet."""
    if pod.restarts > job.restarts:
        return PodRestarted(job.epoch, pod.restarts, pod.restart_reason or "")
    minutes = due_warning(job, now)
    if minutes is not None:
        return Warn(job.epoch, minutes)
    return PodWaits(job.epoch, pod.detail) if pod.detail != job.detail else None


def _own_end(job: Job, pod: PodFacts) -> Step | None:
    if pod.state is PodState.EXITED and not pod.deleting:
        return Record(CommandEnded(job.epoch, pod.exit_code or 0))
    if pod.state in {PodState.FAILED, PodState.REFUSED}:
        return Record(PodFailed(job.epoch, pod.detail, pod.exit_code))
    return AskNode(pod.exit_code or None, pod.disruption) if pod.deleting else None


def due_warning(job: Job, now: datetime) -> int | None:
    """Minutes of the warning that should be told now and was not; None when none is due.

    After a gap only the latest is due. A job that was never longer than a warning's time is not warned.
    """
    for minutes in reversed(WARNING_MINUTES):
        if _warns_at(job, minutes) is not None and now >= (_warns_at(job, minutes) or now):
            told = job.warned_minutes is not None and job.warned_minutes <= minutes
            return None if told else minutes
    return None


def _next_moment(job: Job, now: datetime) -> datetime:
    moments = [at for minutes in WARNING_MINUTES if (at := _warns_at(job, minutes)) is not None and at > now]
    assert job.expires_at is not None  # noqa: S101 - every active job has an end
    return min([*moments, job.expires_at])


def _warns_at(job: Job, minutes: int) -> datetime | None:
    if job.expires_at is None or job.launched_at is None:
        return None
    at = job.expires_at - timedelta(minutes=minutes)
    return at if at > job.launched_at else None


def _rest(now: datetime, limits: Limits, moment: datetime | None = None) -> Rest:
    next_look = now + timedelta(seconds=limits.resync_seconds)
    return Rest(next_look if moment is None or moment <= now else min(next_look, moment))
