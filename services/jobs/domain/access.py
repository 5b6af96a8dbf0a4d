"""Who may enter a job and whether Jupyter runs in it: the rules of the requests and of their outcomes."""

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from services.jobs.domain.facts import (
    Fact,
    HostKeysRead,
    JupyterFailed,
    JupyterRequested,
    JupyterSwitched,
    KeysApplied,
    KeysFetched,
    UserDelayed,
    UserRefused,
    UserRequested,
)
from services.jobs.domain.job import Job, JobUser, UserState
from services.jobs.domain.transition import Rule, Transition, owner_of
from shared.contracts.jobs import (
    JobEvent,
    JobJupyterDisabled,
    JobJupyterEnabled,
    JobJupyterFailed,
    JobJupyterRequested,
    JobUserAdded,
    JobUserRefused,
    JobUserRequested,
)

MAX_USERS = 32
"""GitHub users of one job at most, refused ones included: the page of their keys must stay small."""
BARE = "The pods of this cluster have neither SSH nor Jupyter"
NO_ANSWER_YET = "JupyterLab does not answer yet; it is still being started"
_LONGEST_PAUSE = timedelta(seconds=30)
_SHORTEST_PAUSE = timedelta(seconds=1)
_OPEN = frozenset({UserState.REQUESTED, UserState.DELAYED})


def first_users(github_user: str | None, *, bare: bool, now: datetime) -> list[JobUser]:
    """The users of a new job; `bare`: its pod will have no SSH."""
    if github_user is None:
        return []
    state, reason = (UserState.REFUSED, BARE) if bare else (UserState.REQUESTED, None)
    return [JobUser(name=github_user, state=state, reason=reason, first=True, requested_at=now)]


def begin(job: Job, now: datetime) -> Job:
    """A job whose pod is ready: keys that were there when it was made are in it; the rest counts from now."""
    users = [
        replace(user, state=UserState.ADDED if user.state is UserState.FETCHED else user.state, requested_at=now)
        for user in job.users
    ]
    return replace(job, users=users, jupyter_requested_at=now if job.jupyter_wanted else None)


def find_user(job: Job, name: str) -> JobUser | None:
    """The user of that name, which GitHub takes without regard to case; None when nobody asked for them."""
    return next((user for user in job.users if user.name.lower() == name.lower()), None)


def entry_asked_at(job: Job) -> datetime:
    """When the last who may enter was asked for, or the job began if that is later; without any, when it was made."""
    return max((user.requested_at for user in job.users if user.state is not UserState.REFUSED), default=job.created_at)


def users_to_fetch(job: Job) -> list[JobUser]:
    """Whose keys are still to be had from GitHub."""
    return [user for user in job.users if user.state in _OPEN]


def users_to_apply(job: Job) -> list[JobUser]:
    """Whose keys are stored and still to be brought into the pod."""
    return [user for user in job.users if user.state is UserState.FETCHED]


def next_try(asked_at: datetime, now: datetime) -> datetime:
    """When to try again what could not be done: the longer it was asked for, the later."""
    return now + min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, (now - asked_at) / 2))


def _request_user(job: Job, fact: UserRequested, now: datetime) -> Transition:
    known = find_user(job, fact.name)
    if known is not None and known.state is not UserState.REFUSED:
        return Transition(job)
    first = known is not None and known.first
    asked = JobUser(name=fact.name, state=UserState.REQUESTED, first=first, requested_at=now)
    others = [user for user in job.users if user is not known]
    event = JobUserRequested(**owner_of(job), github_username=fact.name)
    return Transition(replace(job, users=[*others, asked]), (event,))


def _keep_keys(job: Job, fact: KeysFetched, _: datetime) -> Transition:
    return _settle(job, fact.name, _OPEN, state=UserState.FETCHED, reason=None)


def _delay_user(job: Job, fact: UserDelayed, _: datetime) -> Transition:
    return _settle(job, fact.name, _OPEN, state=UserState.DELAYED, reason=fact.reason)


def _refuse_user(job: Job, fact: UserRefused, _: datetime) -> Transition:
    event = JobUserRefused(**owner_of(job), github_username=fact.name, reason=fact.reason)
    open_states = _OPEN | {UserState.FETCHED}
    return _settle(job, fact.name, open_states, event, state=UserState.REFUSED, reason=fact.reason)


def _admit(job: Job, fact: KeysApplied, _: datetime) -> Transition:
    names = {name.lower() for name in fact.names}
    admitted = [user for user in users_to_apply(job) if user.name.lower() in names]
    users = [replace(user, state=UserState.ADDED) if user in admitted else user for user in job.users]
    events = (JobUserAdded(**owner_of(job), github_username=user.name) for user in admitted)
    return Transition(replace(job, users=users), tuple(events))


def _note_host_keys(job: Job, fact: HostKeysRead, _: datetime) -> Transition:
    return Transition(replace(job, ssh_host_keys=list(fact.keys)))


def _settle(job: Job, name: str, states: frozenset[UserState], *events: JobEvent, **changes: Any) -> Transition:
    user = find_user(job, name)
    if user is None or user.state not in states:
        return Transition(job)
    users = [replace(other, **changes) if other is user else other for other in job.users]
    return Transition(replace(job, users=users), events)


def _want_jupyter(job: Job, fact: JupyterRequested, now: datetime) -> Transition:
    wanted = fact.token_sealed is not None
    repeated = wanted is job.jupyter_wanted and job.jupyter_error is None and job.jupyter_revision > 0
    if repeated:
        return Transition(job)
    job = replace(
        job,
        jupyter_wanted=wanted,
        jupyter_token_sealed=fact.token_sealed,
        jupyter_requested_at=now,
        jupyter_revision=job.jupyter_revision + 1,
        jupyter_error=None,
    )
    return Transition(job, (JobJupyterRequested(**owner_of(job), wanted=wanted),))


def _switch_jupyter(job: Job, fact: JupyterSwitched, _: datetime) -> Transition:
    if not _is_open(job, fact.revision):
        return Transition(job)
    kind = JobJupyterEnabled if job.jupyter_wanted else JobJupyterDisabled
    job = replace(job, jupyter_applied=fact.revision, jupyter_enabled=job.jupyter_wanted, jupyter_error=None)
    return Transition(job, (kind(**owner_of(job)),))


def _fail_jupyter(job: Job, fact: JupyterFailed, _: datetime) -> Transition:
    if not _is_open(job, fact.revision):
        return Transition(job)
    event = JobJupyterFailed(**owner_of(job), wanted=job.jupyter_wanted, reason=fact.reason)
    running = job.jupyter_enabled and not job.jupyter_wanted
    job = replace(
        job,
        jupyter_applied=fact.revision,
        jupyter_enabled=running,
        jupyter_wanted=running,
        jupyter_error=fact.reason,
        jupyter_token_sealed=None,
    )
    return Transition(job, (event,))


def _is_open(job: Job, revision: int) -> bool:
    """A newer wish makes the outcome of an older one worthless."""
    return job.jupyter_applied < revision == job.jupyter_revision


BEFORE_THE_START: dict[type[Fact], Rule] = {
    KeysFetched: _keep_keys,
    UserDelayed: _delay_user,
    UserRefused: _refuse_user,
}
WHILE_STARTING: dict[type[Fact], Rule] = {
    **BEFORE_THE_START,
    KeysApplied: _admit,
    HostKeysRead: _note_host_keys,
}
SETTLING_JUPYTER: dict[type[Fact], Rule] = {JupyterSwitched: _switch_jupyter, JupyterFailed: _fail_jupyter}
WHILE_ACTIVE: dict[type[Fact], Rule] = {
    **WHILE_STARTING,
    UserRequested: _request_user,
    JupyterRequested: _want_jupyter,
    **SETTLING_JUPYTER,
}
