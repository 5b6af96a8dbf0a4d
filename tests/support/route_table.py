"""Every route of the API and whom it serves: a route that has no row here fails the walk over them."""

from enum import Enum, auto
from typing import Any

Route = tuple[str, str]


class Serves(Enum):
    """Whom a route serves."""

    ANYBODY = auto()
    """Also without a key."""
    USERS = auto()
    """Whoever has a good key, with what is theirs."""
    OWNER = auto()
    """Whose object it is; for others it is not there."""
    OWNER_AND_OPERATORS = auto()
    """Whose object it is, and operators; for others it is not there."""
    OPERATORS = auto()
    """Operators; others are told so, whatever the object."""
    NOBODY = auto()
    """The ingress leads there for nobody."""


DOCUMENTED: dict[Route, Serves] = {
    ("post", "/v1/auth/aws-login"): Serves.ANYBODY,
    ("get", "/v1/auth/aws-signing"): Serves.ANYBODY,
    ("post", "/v1/auth/aws-signed-login"): Serves.ANYBODY,
    ("post", "/v1/auth/console-login"): Serves.ANYBODY,
    ("get", "/v1/auth/identity"): Serves.USERS,
    ("get", "/v1/auth/users"): Serves.OPERATORS,
    ("post", "/v1/auth/users/{user_id}/disable"): Serves.OPERATORS,
    ("post", "/v1/auth/users/{user_id}/enable"): Serves.OPERATORS,
    ("post", "/v1/auth/console-codes"): Serves.USERS,
    ("get", "/health"): Serves.ANYBODY,
    ("get", "/"): Serves.ANYBODY,
    ("get", "/openapi.json"): Serves.ANYBODY,
    ("get", "/health/auth"): Serves.ANYBODY,
    ("get", "/health/jobs"): Serves.ANYBODY,
    ("get", "/health/disks"): Serves.ANYBODY,
    ("get", "/health/capacity"): Serves.ANYBODY,
    ("get", "/v1/jobs/{job_id}"): Serves.OWNER,
    ("get", "/v1/jobs/{job_id}/logs"): Serves.OWNER,
    ("get", "/v1/jobs/{job_id}/history"): Serves.OWNER,
    ("get", "/v1/jobs/{job_id}/explain"): Serves.OWNER,
    ("get", "/v1/jobs/{job_id}/events"): Serves.OWNER_AND_OPERATORS,
    ("post", "/v1/jobs/{job_id}/extend"): Serves.OWNER,
    ("post", "/v1/jobs/{job_id}/jupyter/enable"): Serves.OWNER,
    ("post", "/v1/jobs/{job_id}/jupyter/disable"): Serves.OWNER,
    ("post", "/v1/jobs/{job_id}/users"): Serves.OWNER,
    ("get", "/v1/disks/{disk_name}"): Serves.OWNER,
    ("get", "/v1/disks/{disk_name}/content"): Serves.OWNER,
    ("get", "/v1/disks/{disk_name}/snapshots"): Serves.OWNER,
    ("get", "/v1/disks/{disk_name}/operations/{operation_id}"): Serves.OWNER,
    ("delete", "/v1/disks/{disk_name}"): Serves.OWNER,
    ("post", "/v1/disks/{disk_name}/restore"): Serves.OWNER,
    ("post", "/v1/disks/{disk_name}/snapshots"): Serves.OWNER,
    ("post", "/v1/disks/{disk_name}/rename"): Serves.OWNER,
    ("post", "/v1/jobs/{job_id}/priority"): Serves.OPERATORS,
    ("get", "/v1/audit"): Serves.OPERATORS,
    ("get", "/v1/orphans/cluster"): Serves.OPERATORS,
    ("get", "/v1/orphans/aws"): Serves.OPERATORS,
    ("get", "/v1/orphans/leases"): Serves.OPERATORS,
    ("get", "/v1/jobs"): Serves.USERS,
    ("get", "/v1/gpu/availability"): Serves.USERS,
    ("get", "/v1/cluster/status"): Serves.USERS,
    ("get", "/v1/usage"): Serves.USERS,
    ("get", "/v1/cluster/nodes"): Serves.USERS,
    ("get", "/v1/gpu/queue"): Serves.USERS,
    ("get", "/v1/gpu/estimates"): Serves.USERS,
    ("get", "/v1/disks"): Serves.USERS,
    ("get", "/v1/events"): Serves.USERS,
    ("post", "/v1/webhooks"): Serves.USERS,
    ("get", "/v1/webhooks"): Serves.USERS,
    ("get", "/v1/webhooks/{webhook_id}"): Serves.OWNER,
    ("post", "/v1/webhooks/{webhook_id}/test"): Serves.OWNER,
    ("delete", "/v1/webhooks/{webhook_id}"): Serves.OWNER,
    ("get", "/v1/keys"): Serves.USERS,
    ("post", "/v1/jobs/submit"): Serves.USERS,
    ("post", "/v1/jobs/batch"): Serves.USERS,
    ("post", "/v1/disks"): Serves.USERS,
    ("post", "/v1/keys/rotate"): Serves.USERS,
    ("delete", "/v1/keys/{key_prefix}"): Serves.OWNER,
    ("post", "/v1/jobs/{job_id}/cancel"): Serves.OWNER_AND_OPERATORS,
    ("get", "/v1/jobs/{job_id}/ssh"): Serves.OWNER_AND_OPERATORS,
}
"""The 20 endpoints of the contract and what we added, none taking away what a later one asks about."""

UNDOCUMENTED: dict[Route, Serves] = {
    ("get", "/docs"): Serves.ANYBODY,
    ("get", "/docs/start.js"): Serves.ANYBODY,
    ("get", "/console"): Serves.ANYBODY,
    ("get", "/console/assets/main.js"): Serves.ANYBODY,
    ("get", "/docs/events"): Serves.ANYBODY,
    ("get", "/docs/events.json"): Serves.ANYBODY,
    ("get", "/docs/assets/swagger-ui.css"): Serves.ANYBODY,
    ("get", "/livez"): Serves.NOBODY,
    ("get", "/readyz"): Serves.NOBODY,
    ("get", "/readyz/shutdown"): Serves.NOBODY,
    ("get", "/metrics"): Serves.NOBODY,
    ("post", "/internal/verify"): Serves.NOBODY,
    ("get", "/internal/schema"): Serves.NOBODY,
}

ROUTES = {**DOCUMENTED, **UNDOCUMENTED}

ENDLESS = {"/v1/events", "/v1/jobs/{job_id}/events"}
"""Routes whose answers go on until somebody ends them."""

TELL_OPERATORS = {"/v1/cluster/nodes", "/v1/gpu/queue"}
"""Routes of users that tell operators, and nobody else, of others' objects as well."""

BODIES: dict[str, Any] = {
    "/v1/auth/aws-login": {},
    "/v1/auth/console-login": {"code": "none"},
    "/v1/auth/aws-signed-login": {},
    "/v1/jobs/submit": {"image": "debian:12", "instance_type": "p5.48xlarge", "gpu_count": 1, "command": "exit 0"},
    "/v1/jobs/batch": {"jobs": [{"image": "debian:12", "instance_type": "p5.48xlarge", "gpu_count": 1}]},
    "/v1/jobs/{job_id}/extend": {"extension_hours": 1},
    "/v1/jobs/{job_id}/users": {"github_username": "demo"},
    "/v1/jobs/{job_id}/priority": {"priority": 1},
    "/v1/webhooks": {"url": "https://93.184.215.14/hook"},
    "/v1/disks": {"disk_name": "private", "size_gb": 10},
    "/v1/disks/{disk_name}/rename": {"new_name": "other"},
}
"""A good body of each route that reads one."""
