"""The public paths and the service behind each: the single source of every ingress and of the merged OpenAPI.

The local Traefik configuration and the Kubernetes Ingress are rendered from these rows, and a test holds the
services' own routes equal to them.
"""

from typing import Literal

import msgspec

ServiceName = Literal["auth", "jobs", "disks", "capacity"]
SERVICES: tuple[ServiceName, ...] = ("auth", "jobs", "disks", "capacity")


class Route(msgspec.Struct, frozen=True):
    path: str
    """Path as the client sends it, without a trailing slash except for the root."""
    service: ServiceName
    """Service that answers."""
    exact: bool = False
    """True: only this path. False: this path and everything below it, at a segment boundary."""


FRONT_DOOR: ServiceName = "auth"

ROUTES: tuple[Route, ...] = (
    Route("/v1/auth", "auth"),
    Route("/v1/keys", "auth"),
    Route("/v1/audit", "auth"),
    Route("/v1/jobs", "jobs"),
    Route("/v1/events", "jobs"),
    Route("/v1/webhooks", "jobs"),
    Route("/v1/disks", "disks"),
    Route("/v1/gpu", "capacity"),
    Route("/v1/cluster", "capacity"),
    Route("/v1/usage", "capacity"),
    Route("/v1/orphans/cluster", "jobs", exact=True),
    Route("/v1/orphans/aws", "disks", exact=True),
    Route("/v1/orphans/leases", "capacity", exact=True),
    *(Route(f"/health/{name}", name, exact=True) for name in SERVICES),
    Route("/", FRONT_DOOR, exact=True),
    Route("/health", FRONT_DOOR, exact=True),
    Route("/docs", FRONT_DOOR),
    Route("/console", FRONT_DOOR),
    Route("/openapi.json", FRONT_DOOR, exact=True),
)
"""Everything else reaches no domain; the ingress sends it to the front door, which answers 404 in our error shape."""

CONTRACT: tuple[tuple[str, str], ...] = (
    ("post", "/v1/auth/aws-login"),
    ("get", "/health"),
    ("get", "/"),
    ("post", "/v1/jobs/submit"),
    ("get", "/v1/jobs/{job_id}"),
    ("get", "/v1/jobs"),
    ("post", "/v1/jobs/{job_id}/cancel"),
    ("post", "/v1/jobs/{job_id}/extend"),
    ("post", "/v1/jobs/{job_id}/jupyter/enable"),
    ("post", "/v1/jobs/{job_id}/jupyter/disable"),
    ("post", "/v1/jobs/{job_id}/users"),
    ("get", "/v1/gpu/availability"),
    ("get", "/v1/cluster/status"),
    ("post", "/v1/disks"),
    ("get", "/v1/disks"),
    ("get", "/v1/disks/{disk_name}"),
    ("delete", "/v1/disks/{disk_name}"),
    ("get", "/v1/disks/{disk_name}/operations/{operation_id}"),
    ("post", "/v1/disks/{disk_name}/rename"),
    ("post", "/v1/keys/rotate"),
)
"""The contract's endpoints in its order, in which pages tell them; what we added comes after."""


def service_of(path: str) -> ServiceName:
    """The service that answers a public path; the longest matching row wins, as in the ingress."""
    matching = [route for route in ROUTES if _matches(route, path)]
    return max(matching, key=lambda route: len(route.path)).service if matching else FRONT_DOOR


def _matches(route: Route, path: str) -> bool:
    return path == route.path or (not route.exact and path.startswith(route.path + "/"))
