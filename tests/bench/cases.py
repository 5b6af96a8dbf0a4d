"""What is measured: one request each, beside a path of the bare reference that does the same work."""

from dataclasses import dataclass
from typing import Literal

SUBMIT = '{"image":"debian:12","instance_type":"p6-b200.48xlarge","duration_hours":1,"command":"true"}'
"""Of a type that the fleet has not: the job stays queued and costs nothing more."""


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    service: Literal["jobs", "capacity"]
    line: str
    """Method and path; `{job}` is one of the 10,000 jobs."""
    bare: str
    """Name of the reference's path."""
    body: str = ""
    known: bool = False
    """The client has the answer already."""
    writes: bool = False
    """It is left out where only reads make sense."""

    def request(self, key: str, job: str, *, path: str | None = None) -> str:
        """An HTTP/1.1 request; `path`: another than the case's own."""
        method, own_path = self.line.split()
        return (
            f"{method} {path or own_path.format(job=job)} HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"{'If-None-Match: *' if self.known else 'Accept: */*'}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n{self.body}"
        )


CASES = (
    Case(name="get job", service="jobs", line="GET /v1/jobs/{job}", bare="get"),
    Case(name="list 50 of 10,000", service="jobs", line="GET /v1/jobs?limit=50", bare="list"),
    Case(name="known job", service="jobs", line="GET /v1/jobs/{job}", bare="get", known=True),
    Case(name="known list", service="jobs", line="GET /v1/jobs?limit=50", bare="list", known=True),
    Case(name="availability", service="capacity", line="GET /v1/gpu/availability", bare="availability"),
    Case(name="cluster status", service="capacity", line="GET /v1/cluster/status", bare="availability"),
    Case(name="submit", service="jobs", line="POST /v1/jobs/submit", bare="submit", body=SUBMIT, writes=True),
)
"""Reads first: what is written makes the tables longer."""
