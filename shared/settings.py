"""Settings: one frozen Struct per service, read from environment variables named GPUDEV_<FIELD>."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class CommonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service needs. A service's own Struct extends it."""

    database_url: str
    """postgresql:// URL of the service's own role, whose search_path is the service's own schema; with libpq's options,
    such as ?sslmode=verify-full&sslrootcert=/path."""
    nats_url: str
    """nats:// or tls:// URL with the service's user and password, or without with nats_credentials_file; several are
    joined by commas."""
    nats_credentials_file: str | None = None
    """The service's .creds file, for a NATS whose accounts are JWTs; it is read again at each connect."""
    nats_ca_file: str | None = None
    """File with the certificate authorities of NATS, in PEM; with it the connection has TLS or is none. None: those of
    the machine, for tls://."""
    secret_keys: str
    """Base64 keys of 32 bytes, joined by commas, newest first: the first encrypts, all decrypt."""
    auth_urls: str | None = None
    """Where auth's replicas answer inside the deployment, joined by commas: keys are checked there while NATS is away.
    None: then only keys of the last 30 s are known."""
    internal_token: str | None = None
    """Secret that the services share, for auth_urls."""
    host: str = "0.0.0.0"  # noqa: S104 - in a pod; who may come in is the network's to say
    """Address to listen on, for requests and metrics."""
    http_port: Port = 8000
    """Port for requests."""
    metrics_port: Port = 9000
    """Port for metrics, for nobody but who collects them."""
    head_seconds: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 120.0
    """For the head of a request, and until a silent connection is closed, in seconds; longer than whatever stands
    before the service keeps one, or a request on its way is lost."""
    drain_seconds: Annotated[float, msgspec.Meta(ge=0, le=300)] = 10.0
    """From SIGTERM to the end of what is held: until then requests are served, for those who still send them here."""
    trusted_proxies: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    """Proxies that every request passes, each of which adds whom it was asked by to X-Forwarded-For: 1 for an ingress
    alone, 2 with a load balancer before it that speaks HTTP. Whoever logs in is counted by the address that the first
    of them saw."""
    session_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 600.0
    """How long WebSockets, which are SSH sessions, go on after SIGTERM when they do not end by themselves."""
    body_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 15.0
    """For the whole of a request's body, in seconds; who takes longer gets 408."""
    failed_keys_per_minute: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 60
    """Keys of one address that auth refuses, in this process; beyond them 429 to every key that was not good lately."""
    sweep: Literal["act", "report"] = "act"
    """act: the sweeps of jobs and disks adopt and delete what is left over; report: they only count and log it, for the
    first start after a restore, when the tables are older than the cluster and AWS."""
    replica: str = "replica"
    """Name of this process in logs and in NATS; any text."""
    log_level: str = "info"
    """debug, info, warning or error."""
    otlp_endpoint: str | None = None
    """http(s):// URL of an OpenTelemetry collector that takes traces by OTLP over HTTP, such as http://collector:4318.
    None: there are no traces, unless OTEL_EXPORTER_OTLP_ENDPOINT names one."""
    database_pool_size: int = 10
    """Connections to PostgreSQL at most."""
    stream_replicas: int = 1
    """Copies of the event stream that NATS keeps: 3 in production."""
    stream_max_bytes: int = 1 << 30
    """Size at which the oldest events leave the stream, in bytes."""


class SettingsError(Exception):
    """One or more environment variables are missing or wrong; the text names them."""


SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


def read_settings(model: type[SettingsT], environment: Mapping[str, str] | None = None) -> SettingsT:
    """Settings from `environment` (None: the process's own).

    Raises:
        SettingsError: Names every variable that is missing or cannot be read. Values are not repeated.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, object] = {}
    faults: list[str] = []
    for field in msgspec.structs.fields(model):
        name = f"GPUDEV_{field.name.upper()}"
        if name in environment and environment[name] != "":
            try:
                values[field.name] = msgspec.convert(environment[name], field.type, strict=False)
            except msgspec.ValidationError as error:
                faults.append(f"{name}: {error}")
        elif field.required:
            faults.append(f"{name} is not set")
    if faults:
        raise SettingsError("; ".join(faults))
    return model(**values)
