"""AWS STS: whose are these credentials?

Only the settings decide where the question goes: AWS's environment variables, configuration files, proxies and what
the client sends have no influence.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import structlog
from botocore import UNSIGNED
from botocore.config import Config
from prometheus_client import Counter

from services.auth.domain.breaker import CircuitBreaker
from services.auth.domain.roles import AwsCredentials, CallerIdentity, SignedQuestion
from shared.aws import AwsError, AwsService, AwsSilent
from shared.errors import Unauthenticated, Unavailable

log = structlog.get_logger(__name__)

_READ_SECONDS = 3
_TOTAL_SECONDS = 7.0
"""Longer than connecting and reading together: looking up a name has no time-out, and a thread may have to be free."""
_PROBE_SECONDS = 4.0
"""For the question whether STS is the cause of a failure or the credentials are."""
_BREAKER_THRESHOLD = 3
_BREAKER_REST_SECONDS = 5.0
_UNSIGNED = Config(signature_version=UNSIGNED)
_calls = Counter("gpudev_sts_calls", "Questions to AWS STS", ["outcome"])
for _outcome in ("answered", "refused", "failed", "spared"):
    _calls.labels(_outcome)  # from 0: of a counter that begins with its first event nothing tells that it has risen


class CredentialsRefused(Unauthenticated):
    """AWS does not know them, or they have expired, or a part is missing."""

    def __init__(self) -> None:
        super().__init__("The AWS credentials are wrong, expired or incomplete")


class StsUnavailable(Unavailable):
    def __init__(self, cause: str, retry_after_seconds: int = 5) -> None:
        super().__init__(
            "AWS STS is unavailable, try again shortly", retry_after_seconds=retry_after_seconds, cause=cause
        )


class StsUnreachable(StsUnavailable):
    """There is no connection, which no credentials can cause."""


class Sts:
    """STS behind time-outs, a bounded number of threads and a circuit breaker.

    Args:
        endpoint_url: None: AWS's own endpoint of the region.
        region: Of the endpoint and of the signature.
        clock: Monotonic seconds, for the breaker.
        total_seconds: For one question, everything included.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None,
        region: str,
        clock: Callable[[], float] = time.monotonic,
        total_seconds: float = _TOTAL_SECONDS,
    ) -> None:
        self.region = region
        self.host = urlsplit(endpoint_url).netloc if endpoint_url else _host_of(region)
        """As the header of a question that is signed elsewhere has it."""
        self._clock = clock
        self._total_seconds = total_seconds
        self._breaker = CircuitBreaker(threshold=_BREAKER_THRESHOLD, rest_seconds=_BREAKER_REST_SECONDS)
        self._aws = AwsService(
            "sts",
            region=region,
            endpoint_url=endpoint_url,
            read_seconds=_READ_SECONDS,
            session=_isolated_session,
            proxied=False,
        )
        self.close = self._aws.close

    async def identify(self, credentials: AwsCredentials | SignedQuestion) -> CallerIdentity:
        """Whose the credentials are: GetCallerIdentity, asked once, signed here or already. Changes nothing at AWS.

        Raises:
            CredentialsRefused: AWS refuses them.
            StsUnavailable: AWS does not answer, or has not for some time.
        """
        if not self._breaker.admits(self._clock()):
            _calls.labels("spared").inc()
            raise StsUnavailable("the circuit breaker is open")
        try:
            caller = await self._ask(credentials, self._total_seconds)
        except StsUnavailable as error:
            if not await self._answers_without_credentials(error):
                self._breaker.failed(self._clock())
            _calls.labels("failed").inc()
            raise
        except CredentialsRefused:
            self._breaker.succeeded()
            _calls.labels("refused").inc()
            raise
        self._breaker.succeeded()
        _calls.labels("answered").inc()
        return caller

    async def _answers_without_credentials(self, failure: StsUnavailable) -> bool:
        """Whether STS answers a question without credentials: then the credentials are the cause of the failure.

        Made-up credentials can bring a server to answer 500 or not at all. They must not close log-in for everyone.
        """
        if isinstance(failure, StsUnreachable):
            return False
        try:
            await self._ask(None, _PROBE_SECONDS)
        except StsUnavailable:
            return False
        except CredentialsRefused:
            return True
        return True

    async def _ask(self, credentials: AwsCredentials | SignedQuestion | None, seconds: float) -> CallerIdentity:
        config, signing = (None, _signing(credentials)) if isinstance(credentials, AwsCredentials) else (_UNSIGNED, {})
        headers = credentials.headers(self.region) if isinstance(credentials, SignedQuestion) else {}
        # verify: without it the environment's REQUESTS_CA_BUNDLE decides whose certificates are believed
        asked = self._aws.call_as(partial(_who, headers), config, verify=True, **signing)
        try:
            async with asyncio.timeout(seconds):
                answer = await asked
            return CallerIdentity(account=answer["Account"], arn=answer["Arn"], user_id=answer["UserId"])
        except TimeoutError:
            raise StsUnreachable("time-out") from None
        except AwsError as error:
            # from None: AWS's text may repeat what was signed
            raise _failure_of(error) from None
        except AwsSilent as error:
            raise (StsUnavailable if error.sent else StsUnreachable)(error.cause) from None
        except KeyError:
            raise StsUnavailable("an answer without an identity") from None


def _host_of(region: str) -> str:
    return f"sts.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _who(headers: Mapping[str, str], client: Any) -> Any:
    """Ask, with headers that are the last word about the request, as far as there are any."""

    def add(request: Any, **_: Any) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    if headers:
        client.meta.events.register("before-send.sts.GetCallerIdentity", add)
    return client.get_caller_identity()


def _signing(credentials: AwsCredentials) -> dict[str, str | None]:
    return {
        "aws_access_key_id": credentials.access_key_id,
        "aws_secret_access_key": credentials.secret_access_key,
        "aws_session_token": credentials.session_token,
    }


def _failure_of(error: AwsError) -> CredentialsRefused | StsUnavailable:
    if error.is_throttling or error.is_fault:
        return StsUnavailable(error.code or str(error.status))
    log.info("aws_credentials_refused", code=error.code)
    return CredentialsRefused()


def _isolated_session() -> Any:
    """A session that reads neither environment variables nor files."""
    defaults = botocore.session.Session.SESSION_VARIABLES
    isolated = {name: (None, None, default, cast) for name, (_, _, default, cast) in defaults.items()}
    for file in ("config_file", "credentials_file"):
        isolated[file] = (None, None, os.devnull, None)
    isolated["ignore_configured_endpoint_urls"] = (None, None, True, None)
    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=isolated))
