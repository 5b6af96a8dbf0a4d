"""Deletion: options, preconditions, grace periods and finalizers, as pure rules over one object."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from deploy.local.cluster.machinery import errors
from deploy.local.cluster.machinery.objects import Object, now, parse_timestamp, timestamp

_ENDED = {"Succeeded", "Failed"}
_POLICIES = ["Background", "Foreground", "Orphan"]
_POLICY_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """What a DELETE asks for; None stands for the kind's default."""

    grace_period_seconds: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    propagation_policy: str | None = None
    dry_run: bool = False


def parse_options(query: dict[str, str], body: Any) -> DeleteOptions:
    """Options from the query and from a DeleteOptions body, which wins; raises BadRequest or Invalid."""
    if body is not None and not isinstance(body, dict):
        raise errors.bad_request("the body of the request is no DeleteOptions")
    given: Object = {key: value for key, value in (body or {}).items() if value is not None}
    if given.get("kind", "DeleteOptions") not in {"DeleteOptions", "Eviction"}:
        raise errors.bad_request(f"{given['kind']} cannot be handled as a DeleteOptions")
    preconditions = given.get("preconditions") or {}
    policy = given.get("propagationPolicy", query.get("propagationPolicy"))
    if policy is not None and policy not in _POLICIES:
        causes = errors.Causes()
        causes.unsupported("propagationPolicy", policy, _POLICIES)
        raise errors.invalid("DeleteOptions", "", causes.found)
    if given.get("orphanDependents", query.get("orphanDependents")) in {True, "true"}:
        policy = "Orphan"
    return DeleteOptions(
        grace_period_seconds=_grace(given.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))),
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        propagation_policy=policy,
        dry_run=bool(given.get("dryRun") or query.get("dryRun")),
    )


def check_preconditions(resource: str, value: Object, options: DeleteOptions) -> None:
    """Raises Conflict when the object is not the one that the caller means."""
    metadata = value["metadata"]
    for label, wanted, found in (
        ("UID", options.uid, metadata["uid"]),
        ("ResourceVersion", options.resource_version, metadata["resourceVersion"]),
    ):
        if wanted is not None and wanted != found:
            detail = f"Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {found}"
            raise errors.conflict(resource, metadata["name"], detail)


def begin_deletion(resource: str, value: Object, options: DeleteOptions) -> bool:
    """Marks `value` as being deleted; True when nothing holds it and it can be removed at once."""
    metadata = value["metadata"]
    finalizer = _POLICY_FINALIZERS.get(options.propagation_policy or "")
    if finalizer and "deletionTimestamp" not in metadata:
        metadata["finalizers"] = sorted({*metadata.get("finalizers", []), finalizer})
    seconds = _pod_grace_seconds(value, options) if resource == "pods" else 0
    before = metadata.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" in metadata and before is not None:
        # a second delete can only shorten the grace period
        if seconds >= before:
            return before == 0 and not metadata.get("finalizers")
        began = parse_timestamp(metadata["deletionTimestamp"]) - timedelta(seconds=before)
        metadata["deletionTimestamp"] = timestamp(max(began + timedelta(seconds=seconds), now()))
    else:
        metadata["deletionTimestamp"] = timestamp(now() + timedelta(seconds=seconds))
    metadata["deletionGracePeriodSeconds"] = seconds
    if resource == "namespaces":
        value["status"]["phase"] = "Terminating"
        return not metadata.get("finalizers") and not value["spec"].get("finalizers")
    return seconds == 0 and not metadata.get("finalizers")


def _grace(given: Any) -> int | None:
    if given is None:
        return None
    try:
        return int(given)
    except (TypeError, ValueError):
        raise errors.bad_request(f"invalid gracePeriodSeconds: {given!r}") from None


def _pod_grace_seconds(value: Object, options: DeleteOptions) -> int:
    spec, status = value["spec"], value.get("status", {})
    if not spec.get("nodeName") or status.get("phase") in _ENDED:
        return 0  # nothing runs that could use the time
    seconds = options.grace_period_seconds
    if seconds is None:
        seconds = value["metadata"].get("deletionGracePeriodSeconds", spec["terminationGracePeriodSeconds"])
    return max(int(seconds), 0)
