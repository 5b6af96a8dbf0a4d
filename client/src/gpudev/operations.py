"""Every route of the API as a method, and what is made of several; the method's name is the route's operation id."""

import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from gpudev import models
from gpudev.core import (
    Close,
    ConnectionLost,
    Effect,
    Item,
    Read,
    Request,
    Response,
    Sleep,
    Steps,
    Stream,
    operation,
    streamed,
)
from gpudev.errors import UnexpectedAnswer
from gpudev.following import LogPosition
from gpudev.retries import IDEMPOTENCY_KEY, exchange, opened
from gpudev.server_sent import EventParser, SentEvent

T = TypeVar("T")
PAGE = 100
LONGEST_WAIT = 30
"""Seconds for which the service holds an answer at most."""
_HELD_SECONDS = 10
_LEAST_TURN_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_UNHEALTHY = frozenset({503})
_NOT_MODIFIED = frozenset({304})


class Operations:
    """The API's methods.

    Every POST and DELETE carries an idempotency key, the same each time it is sent again, so that it has its effect
    once however often the connection breaks. Give your own where the repetition may come from another process.
    """

    retry_seconds: float

    # --- what there is, and how it is

    @operation
    def api_info(self) -> Steps[models.ApiInfo]:
        """What this API is and where its parts are."""
        return (yield from self._get("/", models.ApiInfo, public=True))

    @operation
    def openapi(self) -> Steps[dict[str, Any]]:
        """The API's OpenAPI document."""
        return (yield from self._get("/openapi.json", dict[str, Any], public=True))

    @operation
    def health(self) -> Steps[models.Health]:
        """Health of the whole; an unhealthy one is an answer, not an error."""
        return (yield from self._get("/health", models.Health, public=True, accepted=_UNHEALTHY))

    @operation
    def health_auth(self) -> Steps[models.ServiceHealth]:
        """Health of the service that keeps keys."""
        return (yield from self._health_of("auth"))

    @operation
    def health_jobs(self) -> Steps[models.ServiceHealth]:
        """Health of the service that runs jobs."""
        return (yield from self._health_of("jobs"))

    @operation
    def health_disks(self) -> Steps[models.ServiceHealth]:
        """Health of the service that keeps disks."""
        return (yield from self._health_of("disks"))

    @operation
    def health_capacity(self) -> Steps[models.ServiceHealth]:
        """Health of the service that places jobs."""
        return (yield from self._health_of("capacity"))

    @operation
    def gpu_availability(self) -> Steps[models.Availability]:
        """GPUs of each type, and of each node."""
        return (yield from self._get("/v1/gpu/availability", models.Availability))

    @operation
    def cluster_status(self) -> Steps[models.ClusterStatus]:
        """Sums over all GPU types, and the number of jobs by status."""
        return (yield from self._get("/v1/cluster/status", models.ClusterStatus))

    @operation
    def get_usage(
        self, *, first: date | str | None = None, last: date | str | None = None, user: str | None = None
    ) -> Steps[models.Usage]:
        """GPU hours by UTC day, user and GPU type; by default your own of the last 30 days.

        Args:
            first: First day.
            last: Last day; None: today.
            user: For operators: another user's name, or `*` for everybody.
        """
        params = {"from": first, "to": last, "user": user}
        return (yield from self._get("/v1/usage", models.Usage, params=params))

    @operation
    def get_audit(
        self,
        *,
        user: str | None = None,
        action: str | None = None,
        object: str | None = None,  # noqa: A002 - the API's word
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Steps[models.Audit]:
        """For operators: one page of who did what, newest first.

        Args:
            user: Only what the user of this name did.
            action: Only this operation id.
            object: Only what was done to this: an id, a disk's name, a key's prefix.
            since: Only from this moment on.
            until: Only before this moment.
            limit: Entries at most, up to 200.
            before: `next` of the page before.
        """
        params = {
            "user": user,
            "action": action,
            "object": object,
            "since": since.isoformat() if isinstance(since, datetime) else since,
            "until": until.isoformat() if isinstance(until, datetime) else until,
            "limit": limit,
            "before": before,
        }
        return (yield from self._get("/v1/audit", models.Audit, params=params))

    @streamed
    def iter_audit(
        self,
        *,
        user: str | None = None,
        action: str | None = None,
        object: str | None = None,  # noqa: A002 - the API's word
        since: datetime | str | None = None,
        until: datetime | str | None = None,
    ) -> Stream[models.AuditEntry]:
        """Everything that `get_audit` has on all its pages."""
        before: str | None = None
        while True:
            page = yield from Operations.get_audit.steps(
                self, user=user, action=action, object=object, since=since, until=until, limit=PAGE, before=before
            )
            for entry in page.entries:
                yield Item(entry)
            before = page.next
            if before is None:
                return

    # --- keys

    @operation
    def list_cluster_orphans(self) -> Steps[models.OrphanList]:
        """For operators: objects in the cluster that no job has."""
        return (yield from self._get("/v1/orphans/cluster", models.OrphanList))

    @operation
    def list_aws_orphans(self) -> Steps[models.OrphanList]:
        """For operators: volumes and snapshots that no disk has, or that AWS does not show."""
        return (yield from self._get("/v1/orphans/aws", models.OrphanList))

    @operation
    def list_lease_orphans(self) -> Steps[models.OrphanList]:
        """For operators: where leases and the cluster have disagreed for two minutes."""
        return (yield from self._get("/v1/orphans/leases", models.OrphanList))

    @operation
    def list_nodes(self) -> Steps[models.Fleet]:
        """Each node and each of its GPUs."""
        return (yield from self._get("/v1/cluster/nodes", models.Fleet))

    @operation
    def get_gpu_queue(self) -> Steps[models.Queue]:
        """The waiting jobs of each GPU type in their order."""
        return (yield from self._get("/v1/gpu/queue", models.Queue))

    @operation
    def estimate_starts(self, *, duration_hours: float = 4.0) -> Steps[models.Estimates]:
        """When a job of each size would start if it were submitted now."""
        return (yield from self._get("/v1/gpu/estimates", models.Estimates, params={"duration_hours": duration_hours}))

    @operation
    def aws_login(
        self, *, aws_access_key_id: str, aws_secret_access_key: str, aws_session_token: str | None = None
    ) -> Steps[models.Login]:
        """Exchange AWS credentials of an allowed role's session for a key; this client does not take it into use."""
        body = {
            "aws_access_key_id": aws_access_key_id,
            "aws_secret_access_key": aws_secret_access_key,
            "aws_session_token": aws_session_token,
        }
        return (yield from self._post("/v1/auth/aws-login", models.Login, body=body, public=True))

    @operation
    def get_aws_signing(self) -> Steps[models.AwsSigning]:
        """What `aws_signed_login` wants signed."""
        return (yield from self._get("/v1/auth/aws-signing", models.AwsSigning, public=True))

    @operation
    def aws_signed_login(
        self, *, aws_access_key_id: str, aws_session_token: str, signed_at: str, signature: str
    ) -> Steps[models.Login]:
        """As `aws_login`, without sending the secret key."""
        body = {
            "aws_access_key_id": aws_access_key_id,
            "aws_session_token": aws_session_token,
            "signed_at": signed_at,
            "signature": signature,
        }
        return (yield from self._post("/v1/auth/aws-signed-login", models.Login, body=body, public=True))

    @operation
    def get_identity(self) -> Steps[models.Identity]:
        """Whose key this is."""
        return (yield from self._get("/v1/auth/identity", models.Identity))

    @operation
    def list_users(self, *, limit: int = 50, offset: int = 0) -> Steps[models.UserList]:
        """Operators: one page of everybody who has ever logged in; who did last comes first."""
        return (yield from self._get("/v1/auth/users", models.UserList, params={"limit": limit, "offset": offset}))

    @operation
    def disable_user(self, user_id: int | str, *, idempotency_key: str | None = None) -> Steps[models.UserAction]:
        """Operators: refuse a user, revoke their keys and cancel their jobs; the id is as `list_users` tells it."""
        return (yield from self._post(f"{_user(user_id)}/disable", models.UserAction, key=idempotency_key))

    @operation
    def enable_user(self, user_id: int | str, *, idempotency_key: str | None = None) -> Steps[models.UserAction]:
        """Operators: let a disabled user log in again."""
        return (yield from self._post(f"{_user(user_id)}/enable", models.UserAction, key=idempotency_key))

    @operation
    def create_console_code(self, *, idempotency_key: str | None = None) -> Steps[models.ConsoleCode]:
        """A code with which a browser logs in to the console, once and within 60 s."""
        return (yield from self._post("/v1/auth/console-codes", models.ConsoleCode, key=idempotency_key))

    @operation
    def console_login(self, *, code: str) -> Steps[models.NewKey]:
        """Exchange such a code for a key; this client does not take it into use."""
        return (yield from self._post("/v1/auth/console-login", models.NewKey, body={"code": code}, public=True))

    @operation
    def rotate_key(self, *, idempotency_key: str | None = None) -> Steps[models.NewKey]:
        """A new key, never past the end of the log-in session; the old one works for 60 s more."""
        return (yield from self._post("/v1/keys/rotate", models.NewKey, key=idempotency_key))

    @operation
    def list_keys(self, *, limit: int = 50, offset: int = 0) -> Steps[models.KeyList]:
        """One page of one's own keys that are alive, newest first."""
        return (yield from self._get("/v1/keys", models.KeyList, params={"limit": limit, "offset": offset}))

    @operation
    def revoke_key(self, key_prefix: str, *, idempotency_key: str | None = None) -> Steps[models.RevokedKey]:
        """Revoke one of one's own keys, by its beginning as `list_keys` tells it."""
        path = f"/v1/keys/{_segment(key_prefix)}"
        return (yield from self._change("DELETE", path, models.RevokedKey, key=idempotency_key))

    @streamed
    def iter_keys(self) -> Stream[models.Key]:
        """All of one's own keys that are alive, newest first."""
        yield from _pages(
            lambda offset: Operations.list_keys.steps(self, limit=PAGE, offset=offset),
            lambda page: page.keys,
            lambda key: key.key_prefix,
        )

    # --- jobs

    @operation
    def submit_job(
        self,
        *,
        image: str,
        instance_type: str,
        duration_hours: float | None = None,
        gpu_count: int | None = None,
        command: str | None = None,
        working_dir: str | None = None,
        name: str | None = None,
        disk_name: str | None = None,
        disk_size_gb: int | None = None,
        env_vars: Mapping[str, str] | None = None,
        github_user: str | None = None,
        jupyter_enabled: bool | None = None,
        wait: int | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[models.Submitted]:
        """Put a job in the queue for GPUs.

        Args:
            image: registry/name:tag@digest.
            instance_type: Such as `p5.48xlarge`.
            duration_hours: Fractions allowed; None: an hour.
            gpu_count: None: the whole instance.
            command: For `/bin/sh -c`; None: the job idles, to be worked in.
            working_dir: Where the command starts.
            name: A DNS label.
            disk_name: Of a disk, which is made if there is none of that name.
            disk_size_gb: Of a disk that is made.
            env_vars: Of the command and of every session.
            github_user: Whose SSH keys open the job.
            jupyter_enabled: Whether it has Jupyter from the beginning.
            wait: Seconds, at most 30, for which the answer is held until the job has left the queue.
            idempotency_key: Of this submission; None: one is made.
        """
        fields = {
            "image": image,
            "instance_type": instance_type,
            "duration_hours": duration_hours,
            "gpu_count": gpu_count,
            "command": command,
            "working_dir": working_dir,
            "name": name,
            "disk_name": disk_name,
            "disk_size_gb": disk_size_gb,
            "env_vars": None if env_vars is None else dict(env_vars),
            "github_user": github_user,
            "jupyter_enabled": jupyter_enabled,
        }
        body = {name: value for name, value in fields.items() if value is not None}
        return (yield from self._post("/v1/jobs/submit", models.Submitted, body=body, wait=wait, key=idempotency_key))

    @operation
    def submit_jobs(
        self, *, jobs: Sequence[Mapping[str, Any]], idempotency_key: str | None = None
    ) -> Steps[models.SubmittedBatch]:
        """Put up to 500 jobs in the queue, in their order: all of them, or none.

        Args:
            jobs: What `submit_job` takes of each job, by name: image, instance_type and the others.
            idempotency_key: Of the whole batch; None: one is made.
        """
        body = {"jobs": [dict(job) for job in jobs]}
        return (yield from self._post("/v1/jobs/batch", models.SubmittedBatch, body=body, key=idempotency_key))

    @operation
    def get_job(self, job_id: str, *, wait: int | None = None) -> Steps[models.Job]:
        """A job, by its id or a unique beginning of it of at least 8 characters.

        Args:
            job_id: Which one.
            wait: Seconds, at most 30, for which the answer is held until the job is another than this client got the
                last time it waited for it; the first time it comes at once.
        """
        if not wait:
            return (yield from self._get(_job(job_id), models.Job))
        seen: dict[str, tuple[str, models.Job]] = self.__dict__.setdefault("_waited_for", {})
        tag, job = seen.pop(job_id, (None, None))
        response = yield from self._exchange("GET", _job(job_id), wait=wait, tag=tag, accepted=_NOT_MODIFIED)
        if job is None or response.status not in _NOT_MODIFIED:
            tag, job = response.headers.get("etag"), _read(response, models.Job)
        if tag is not None and not job.ended:
            seen[job_id] = tag, job
        return job

    @operation
    def list_jobs(
        self, *, status: str | None = None, limit: int = 50, offset: int = 0, user: str | None = None
    ) -> Steps[models.JobList]:
        """One page of one's own jobs, newest first; `status`: of some statuses only, separated by commas.

        Operators: `user` for another's jobs, `*` for everybody's.
        """
        params = {"status": status, "limit": limit, "offset": offset, "user": user}
        return (yield from self._get("/v1/jobs", models.JobList, params=params))

    @streamed
    def iter_jobs(self, *, status: str | None = None) -> Stream[models.Job]:
        """All of one's own jobs, newest first, fetched page by page as they are taken."""
        yield from _pages(
            lambda offset: Operations.list_jobs.steps(self, status=status, limit=PAGE, offset=offset),
            lambda page: page.jobs,
            lambda job: job.job_id,
        )

    @operation
    def get_job_history(self, job_id: str) -> Steps[models.JobHistory]:
        """The statuses that a job had, with times and reasons, oldest first."""
        return (yield from self._get(f"{_job(job_id)}/history", models.JobHistory))

    @operation
    def explain_job(self, job_id: str) -> Steps[models.Explanation]:
        """What a job waits for, when it will start, and what would start sooner."""
        return (yield from self._get(f"{_job(job_id)}/explain", models.Explanation))

    @operation
    def cancel_job(
        self, job_id: str, *, reason: str | None = None, wait: int | None = None, idempotency_key: str | None = None
    ) -> Steps[models.ActionAnswer]:
        """Cancel a job that has not ended; `wait`: hold the answer for so many seconds until it has."""
        path, params = f"{_job(job_id)}/cancel", {"reason": reason}
        return (yield from self._post(path, models.ActionAnswer, params=params, wait=wait, key=idempotency_key))

    @operation
    def extend_job(
        self, job_id: str, *, extension_hours: float, wait: int | None = None, idempotency_key: str | None = None
    ) -> Steps[models.ActionAnswer]:
        """Give an active job more time."""
        path, body = f"{_job(job_id)}/extend", {"extension_hours": extension_hours}
        return (yield from self._post(path, models.ActionAnswer, body=body, wait=wait, key=idempotency_key))

    @operation
    def add_user(
        self, job_id: str, *, github_username: str, wait: int | None = None, idempotency_key: str | None = None
    ) -> Steps[models.ActionAnswer]:
        """Let a GitHub user's SSH keys open an active job."""
        path, body = f"{_job(job_id)}/users", {"github_username": github_username}
        return (yield from self._post(path, models.ActionAnswer, body=body, wait=wait, key=idempotency_key))

    @operation
    def enable_jupyter(
        self, job_id: str, *, wait: int | None = None, idempotency_key: str | None = None
    ) -> Steps[models.ActionAnswer]:
        """Start JupyterLab in an active job; the job then has `jupyter_url`."""
        path = f"{_job(job_id)}/jupyter/enable"
        return (yield from self._post(path, models.ActionAnswer, wait=wait, key=idempotency_key))

    @operation
    def disable_jupyter(
        self, job_id: str, *, wait: int | None = None, idempotency_key: str | None = None
    ) -> Steps[models.ActionAnswer]:
        """Stop JupyterLab in an active job."""
        path = f"{_job(job_id)}/jupyter/disable"
        return (yield from self._post(path, models.ActionAnswer, wait=wait, key=idempotency_key))

    @operation
    def prioritise_job(
        self, job_id: str, *, priority: int, idempotency_key: str | None = None
    ) -> Steps[models.ActionAnswer]:
        """For operators: move a job in the queue; higher goes first."""
        path = f"{_job(job_id)}/priority"
        return (yield from self._post(path, models.ActionAnswer, body={"priority": priority}, key=idempotency_key))

    @operation
    def get_job_logs(self, job_id: str, *, tail: int | None = None, since: str | None = None) -> Steps[str]:
        """What a job's command has printed so far.

        Args:
            job_id: As for `get_job`.
            tail: The last lines only.
            since: An RFC 3339 time, or seconds ago.
        """
        params = {"tail": tail, "since": since}
        response = yield from self._exchange("GET", f"{_job(job_id)}/logs", params=params)
        return response.body.decode(errors="replace")

    @streamed
    def follow_job_logs(self, job_id: str, *, tail: int | None = None, since: str | None = None) -> Stream[bytes]:
        """What a job's command prints, as it comes, until the job has ended; a cut is mended.

        Args:
            job_id: As for `get_job`.
            tail: Begin with so many lines of what there is; None: with all.
            since: Begin with what was printed after an RFC 3339 time, or so many seconds ago.

        Raises:
            GpuDevError: Of the last try, when the service cannot be reached for `retry_seconds`.
        """
        path = f"{_job(job_id)}/logs"
        params = {"follow": "true", "since": _moment(since), "tail": tail}
        position = LogPosition(from_start=tail is None)
        while True:
            response = yield from opened(self._request("GET", path, params=params), seconds=self.retry_seconds)
            try:
                while piece := (yield Read(response.stream)):
                    if fresh := position.feed(piece):
                        yield Item(fresh)
            except ConnectionLost:
                over = False
            else:
                over = (yield from Operations.get_job.steps(self, job_id)).ended
            yield Close(response.stream)
            if over:
                if rest := position.end():
                    yield Item(rest)
                return
            yield Sleep(_PAUSE_SECONDS)
            position.cut()
            params["tail"] = None

    @streamed
    def launch_job(self, /, *, idempotency_key: str | None = None, **fields: Any) -> Stream[models.Job]:
        """Submit a job, and see it at each turn of the waiting until it is active or over.

        Waits by holding the answer, not by asking again and again. Takes what `submit_job` takes, except `wait`.
        """
        answer = yield from Operations.submit_job.steps(self, **fields, idempotency_key=idempotency_key)
        while True:
            turn = time.monotonic()
            job = yield from Operations.get_job.steps(self, answer.job_id, wait=_HELD_SECONDS)
            yield Item(job)
            if job.ended or job.status == "active":
                return
            # answers are not held for those who hold too many
            yield Sleep(max(0.0, _LEAST_TURN_SECONDS - (time.monotonic() - turn)))

    # --- events

    @streamed
    def follow_events(
        self, *, topics: str | None = None, user: str | None = None, last_event_id: str | None = None
    ) -> Stream[models.Event]:
        """What happens to one's own jobs and disks, as it happens, for ever; a cut is mended, and nothing left out.

        Args:
            topics: Some of `jobs`, `disks` and `cluster`, separated by commas; None: the first two.
            user: For operators: another user's name, or `*` for everybody.
            last_event_id: `last_id` of the last event that you have; None: begin with what happens from now on.

        Raises:
            GpuDevError: Of the last try, when the service cannot be reached for `retry_seconds`, or the key has ended.
        """
        yield from self._follow("/v1/events", {"topics": topics, "user": user}, last_event_id)

    @streamed
    def follow_job_events(self, job_id: str, *, last_event_id: str | None = None) -> Stream[models.Event]:
        """A job's events from its first, as far as they are kept, then as they come; see `follow_events`."""
        yield from self._follow(f"{_job(job_id)}/events", {}, last_event_id)

    @operation
    def create_webhook(
        self,
        url: str,
        *,
        types: Sequence[str] | None = None,
        job_id: str | None = None,
        format: str | None = None,  # noqa: A002 - the API's name
        idempotency_key: str | None = None,
    ) -> Steps[models.NewWebhook]:
        """Have events sent to a URL; the secret that signs them is in this answer and in no other.

        Args:
            url: On hosts with public addresses only, unless operators allow others.
            types: Such as `jobs.started`, or `jobs.turn_near`; None: what most people want told.
            job_id: Only what is about this job.
            format: `events`, or `slack` for an incoming webhook of Slack.
            idempotency_key: As for every POST.
        """
        given = {"url": url, "types": types, "job_id": job_id, "format": format}
        body = {name: value for name, value in given.items() if value is not None}
        return (yield from self._post("/v1/webhooks", models.NewWebhook, body=body, key=idempotency_key))

    @operation
    def list_webhooks(self) -> Steps[models.WebhookList]:
        """One's own webhooks and how they do, oldest first."""
        return (yield from self._get("/v1/webhooks", models.WebhookList))

    @operation
    def get_webhook(self, webhook_id: str) -> Steps[models.WebhookDetails]:
        """A webhook with its latest messages; what was given up comes first."""
        return (yield from self._get(_webhook(webhook_id), models.WebhookDetails))

    @operation
    def test_webhook(self, webhook_id: str, *, idempotency_key: str | None = None) -> Steps[models.WebhookAction]:
        """Send a message to try it; what came of it shows on the webhook."""
        return (yield from self._post(f"{_webhook(webhook_id)}/test", models.WebhookAction, key=idempotency_key))

    @operation
    def delete_webhook(self, webhook_id: str, *, idempotency_key: str | None = None) -> Steps[models.WebhookAction]:
        """Delete a webhook, with what it was still to be sent."""
        return (yield from self._change("DELETE", _webhook(webhook_id), models.WebhookAction, key=idempotency_key))

    def _follow(
        self, path: str, params: Mapping[str, str | None], last_event_id: str | None
    ) -> Generator[Effect | Item[models.Event], Any, None]:
        parser = EventParser(last_event_id)
        given = {name: value for name, value in params.items() if value is not None}
        while True:
            headers = {"Accept": "text/event-stream"}
            if parser.last_id is not None:
                headers["Last-Event-ID"] = parser.last_id
            request = Request(method="GET", path=path, params=given, headers=headers)
            response = yield from opened(request, seconds=self.retry_seconds)
            with suppress(ConnectionLost):
                while piece := (yield Read(response.stream)):
                    for sent in parser.feed(piece):
                        if sent.kind != "end":  # the next answer says why, if there is none
                            yield Item(_event(sent))
            yield Close(response.stream)
            yield Sleep(_PAUSE_SECONDS)
            parser.cut()

    # --- disks

    @operation
    def create_disk(
        self,
        disk_name: str,
        *,
        size_gb: int | None = None,
        from_snapshot: str | None = None,
        idempotency_key: str | None = None,
    ) -> Steps[models.DiskOperation]:
        """Ask for a new disk; `wait_for_disk_operation` tells when it is there."""
        given = {"disk_name": disk_name, "size_gb": size_gb, "from_snapshot": from_snapshot}
        body = {name: value for name, value in given.items() if value is not None}
        return (yield from self._post("/v1/disks", models.DiskOperation, body=body, key=idempotency_key))

    @operation
    def list_disks(self, *, include_deleted: bool = False, limit: int = 500, offset: int = 0) -> Steps[models.DiskList]:
        """One page of one's own disks, newest first."""
        params = {"include_deleted": include_deleted or None, "limit": limit, "offset": offset}
        return (yield from self._get("/v1/disks", models.DiskList, params=params))

    @streamed
    def iter_disks(self, *, include_deleted: bool = False) -> Stream[models.Disk]:
        """All of one's own disks, newest first."""
        yield from _pages(
            lambda offset: Operations.list_disks.steps(
                self, include_deleted=include_deleted, limit=PAGE, offset=offset
            ),
            lambda page: page.disks,
            lambda disk: disk.disk_id or disk.disk_name,
        )

    @operation
    def get_disk(self, disk_name: str) -> Steps[models.Disk]:
        """The disk of that name, else the one of that name that was deleted last."""
        return (yield from self._get(_disk(disk_name), models.Disk))

    @operation
    def delete_disk(self, disk_name: str, *, idempotency_key: str | None = None) -> Steps[models.DiskOperation]:
        """Delete a disk; it can be restored until the day that the message says."""
        return (yield from self._change("DELETE", _disk(disk_name), models.DiskOperation, key=idempotency_key))

    @operation
    def restore_disk(self, disk_name: str, *, idempotency_key: str | None = None) -> Steps[models.DiskOperation]:
        """Bring back the disk of that name that was deleted last."""
        return (yield from self._post(f"{_disk(disk_name)}/restore", models.DiskOperation, key=idempotency_key))

    @operation
    def rename_disk(
        self, disk_name: str, *, new_name: str, idempotency_key: str | None = None
    ) -> Steps[models.RenamedDisk]:
        """Rename a disk that is not in use."""
        path, body = f"{_disk(disk_name)}/rename", {"new_name": new_name}
        return (yield from self._post(path, models.RenamedDisk, body=body, key=idempotency_key))

    @operation
    def get_disk_operation(self, disk_name: str, operation_id: str) -> Steps[models.DiskOperationState]:
        """How a request about a disk stands."""
        path = f"{_disk(disk_name)}/operations/{_segment(operation_id)}"
        return (yield from self._get(path, models.DiskOperationState))

    @operation
    def wait_for_disk_operation(
        self, requested: models.DiskOperation, *, seconds: float = 120.0
    ) -> Steps[models.DiskOperationState]:
        """How a request about a disk stands when its outcome is known, or when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            state = yield from Operations.get_disk_operation.steps(self, requested.disk_name, requested.operation_id)
            if state.completed or time.monotonic() + _PAUSE_SECONDS > deadline:
                return state
            yield Sleep(_PAUSE_SECONDS)

    @operation
    def list_disk_snapshots(self, disk_name: str, *, limit: int = 50, offset: int = 0) -> Steps[models.SnapshotList]:
        """One page of a disk's restore points, newest first."""
        params = {"limit": limit, "offset": offset}
        return (yield from self._get(f"{_disk(disk_name)}/snapshots", models.SnapshotList, params=params))

    @streamed
    def iter_disk_snapshots(self, disk_name: str) -> Stream[models.Snapshot]:
        """All restore points of a disk, newest first."""
        yield from _pages(
            lambda offset: Operations.list_disk_snapshots.steps(self, disk_name, limit=PAGE, offset=offset),
            lambda page: page.snapshots,
            lambda snapshot: snapshot.snapshot_id,
        )

    @operation
    def create_disk_snapshot(
        self, disk_name: str, *, idempotency_key: str | None = None
    ) -> Steps[models.DiskOperation]:
        """Ask for a restore point of a disk that is not in use."""
        return (yield from self._post(f"{_disk(disk_name)}/snapshots", models.DiskOperation, key=idempotency_key))

    @operation
    def get_disk_content(self, disk_name: str) -> Steps[models.DiskContent]:
        """What is on a disk, as it was when the last job that used it ended."""
        return (yield from self._get(f"{_disk(disk_name)}/content", models.DiskContent))

    # --- requests

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        wait: int | None = None,
        key: str | None = None,
        tag: str | None = None,
        public: bool = False,
    ) -> Request:
        headers = {"Accept": "application/json"}
        if method != "GET":
            headers[IDEMPOTENCY_KEY] = key or uuid.uuid4().hex
        if body is not None:
            headers["Content-Type"] = "application/json"
        if tag is not None:
            headers["If-None-Match"] = tag
        if wait:
            headers["Prefer"] = f"wait={min(wait, LONGEST_WAIT)}"
        return Request(
            method=method,
            path=path,
            params={name: _text(value) for name, value in (params or {}).items() if value is not None},
            headers=headers,
            body=None if body is None else msgspec.json.encode(body),
            public=public,
        )

    def _exchange(
        self, method: str, path: str, *, accepted: frozenset[int] = frozenset(), **given: Any
    ) -> Steps[Response]:
        request = self._request(method, path, **given)
        return (yield from exchange(request, seconds=self.retry_seconds, accepted=accepted))

    def _change(self, method: str, path: str, answer: type[T], **given: Any) -> Steps[T]:
        return _read((yield from self._exchange(method, path, **given)), answer)

    def _post(self, path: str, answer: type[T], **given: Any) -> Steps[T]:
        return (yield from self._change("POST", path, answer, **given))

    def _get(self, path: str, answer: type[T], **given: Any) -> Steps[T]:
        return (yield from self._change("GET", path, answer, **given))

    def _health_of(self, service: str) -> Steps[models.ServiceHealth]:
        path = f"/health/{service}"
        return (yield from self._get(path, models.ServiceHealth, public=True, accepted=_UNHEALTHY))


def _pages(
    fetch: Callable[[int], Steps[Any]], entries: Callable[[Any], list[T]], identity: Callable[[T], str]
) -> Generator[Effect | Item[T], Any, None]:
    """All entries of all pages, each once although newer ones push others on to the next page."""
    seen: set[str] = set()
    offset = 0
    while True:
        page = yield from fetch(offset)
        found = entries(page)
        for entry in found:
            if identity(entry) not in seen:
                seen.add(identity(entry))
                yield Item(entry)
        offset += len(found)
        if not found or offset >= page.total:
            return


def _read(response: Response, answer: type[T]) -> T:
    try:
        return msgspec.json.decode(response.body, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnexpectedAnswer(
            f"The answer is none of GPU Dev's: {error}",
            status=response.status,
            request_id=response.headers.get("x-request-id"),
        ) from None


def _job(job_id: str) -> str:
    return f"/v1/jobs/{_segment(job_id)}"


def _user(user_id: int | str) -> str:
    return f"/v1/auth/users/{_segment(str(user_id))}"


def _webhook(webhook_id: str) -> str:
    return f"/v1/webhooks/{_segment(webhook_id)}"


def _disk(disk_name: str) -> str:
    return f"/v1/disks/{_segment(disk_name)}"


def _segment(text: str) -> str:
    """One segment of a path, whatever the text is.

    Raises:
        ValueError: It would name another path.
    """
    if text in {"", ".", ".."}:
        raise ValueError(f"{text!r} is no name")
    return quote(text, safe="")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _moment(since: str | None) -> str | None:
    """Seconds ago as a moment, which means the same when it is asked for again."""
    if since is None or not (since.isascii() and since.isdigit()):
        return since
    moment = datetime.now(timezone.utc) - timedelta(seconds=int(since))
    return moment.isoformat().replace("+00:00", "Z")


def _event(sent: SentEvent) -> models.Event:
    if sent.kind:
        return models.Event(type=sent.kind, last_id=sent.last_id)
    return msgspec.structs.replace(msgspec.json.decode(sent.data, type=models.Event), last_id=sent.last_id)
