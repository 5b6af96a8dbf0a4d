"""When to ask AWS again, and when its refusal is for good."""

from datetime import timedelta

LOST_AFTER = timedelta(minutes=15)
"""How long a volume or a snapshot may be invisible before it counts as deleted by somebody else."""
_FIRST_SECONDS = 0.5
_LAST_SECONDS = 8.0
_NOT_LET_IN = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "InvalidSecurityToken",
        "InvalidSignatureException",
        "OptInRequired",
    }
)
"""Our credentials or clock, not the disk."""
_NEVER_FOR_GOOD = _NOT_LET_IN | frozenset(
    {
        # rate, not quota
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "ConcurrentSnapshotLimitExceeded",
        "PendingSnapshotLimitExceeded",
        "PriorRequestNotComplete",
    }
)
_FAULTS_OF_AWS = frozenset({"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "503", "500", ""})
_FOR_GOOD_BEGINNINGS = ("Invalid", "MissingParameter", "UnknownParameter", "Unsupported", "VolumeTypeNotAvailable")
_FOR_GOOD_ENDS = ("LimitExceeded", "QuotaExceeded")


def retry_after(failures: int) -> timedelta:
    """Rest before the next attempt, growing with the attempts that failed in a row.

    Capped low: work must go on within 10 s of the return of what was away.
    """
    return timedelta(seconds=min(_LAST_SECONDS, _FIRST_SECONDS * 2 ** min(failures, 10)))


def refused_for_good(code: str) -> bool:
    """Whether AWS's error code says that this request will never be met.

    Only what is known to be: whatever else happens (throttling, wrong credentials, no capacity in the zone, faults of
    AWS or of something on the way to it) is an outage, and a disk does not fail by an outage.
    """
    if code in _NEVER_FOR_GOOD or "Throttl" in code:
        return False
    return code.startswith(_FOR_GOOD_BEGINNINGS) or code.endswith(_FOR_GOOD_ENDS)


def tag_refused(code: str) -> bool:
    """Whether AWS's error code says that a resource does not take a tag, rather than that AWS is not itself.

    A permission may be missing for one of many resources, so it does not read as an outage here; what is refused is
    tried again in any case.
    """
    return not (code in _NEVER_FOR_GOOD or code in _FAULTS_OF_AWS or "Throttl" in code)


def poll_after(waited: timedelta) -> timedelta:
    """Rest before the next look at something that AWS works on, growing with the time that it has taken already."""
    return timedelta(seconds=min(30.0, max(0.4, waited.total_seconds() / 20)))
