"""The services' OpenAPI documents, made of their applications without anything that they need to run."""

import base64
from typing import Any

from services.auth.app import create_app as auth_app
from services.auth.settings import AuthSettings
from services.capacity.app import create_app as capacity_app
from services.capacity.settings import CapacitySettings
from services.disks.app import create_app as disks_app
from services.disks.settings import DisksSettings
from services.jobs.app import create_app as jobs_app
from services.jobs.settings import JobsSettings
from shared.web.openapi import own_document

_KEY = base64.b64encode(bytes(32)).decode()
_ROLE = "arn:aws:iam::123456789012:role/Nobody"
_COMMON: dict[str, Any] = {
    "database_url": "postgresql://nobody@127.0.0.1:1/none",
    "nats_url": "nats://127.0.0.1:1",
    "secret_keys": _KEY,
}


async def service_documents() -> dict[str, dict[str, Any]]:
    """The part of each service. In a running loop, since applications are made of parts that want one."""
    auth = AuthSettings(**_COMMON, allowed_roles=_ROLE, key_hash_key=_KEY)
    disks = DisksSettings(**_COMMON, aws_region="us-east-1", availability_zone="us-east-1a")
    return {
        "auth": own_document(auth_app(auth), "auth"),
        "jobs": own_document(jobs_app(JobsSettings(**_COMMON)), "jobs"),
        "disks": own_document(disks_app(disks), "disks"),
        "capacity": own_document(capacity_app(CapacitySettings(**_COMMON)), "capacity"),
    }
