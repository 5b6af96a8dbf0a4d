"""AWS STS, the only module that knows boto3: whose are these credentials?

Nothing but the settings decides where the question goes: AWS's environment variables, configuration files, proxies
and whatever the client sends have no say.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import botocore.session
import structlog
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)
from botocore.parsers import ResponseParserError
from prometheus_client import Counter

from services.auth.domain.breaker import CircuitBreaker
from services.auth.domain.roles import AwsCredentials, CallerIdentity
from shared.errors import Unauthenticated, Unavailable

log = structlog.get_logger(__name__)

_CONNECT_SECONDS = 2
_READ_SECONDS = 3
_TOTAL_SECONDS = 7.0
"""Beyond both: looking up a name has no time-out of its own, and a thread may have to be waited for."""
_PROBE_SECONDS = 4.0
"""For the question whether it is STS or the credentials."""
_THREADS = 8
_BREAKER_THRESHOLD = 3
_BREAKER_REST_SECONDS = 5.0
_BUSY_CODES = frozenset(
    {"Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable", "InternalFailure"}
)
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_calls = Counter("gpudev_sts_calls", "Questions to AWS STS", ["outcome"])


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
    """No connection: nobody's credentials can be the cause."""


class Sts:
    """STS behind time-outs, a bounded number of threads and a circuit breaker.

    Args:
        endpoint_url: None: AWS's own endpoint of the region.
        region: Of the endpoint and of the signature.
        clock: Monotonic seconds, for the breaker.
    """

    def __init__(self, *, endpoint_url: str | None, region: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._endpoint_url = endpoint_url
        self._region = region
        self._clock = clock
        self._breaker = CircuitBreaker(threshold=_BREAKER_THRESHOLD, rest_seconds=_BREAKER_REST_SECONDS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sts")
        # at debug these log what they sign and send, the session token with it
        for name in ("boto3", "botocore", "urllib3"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._session = _session()
        # making clients shares caches of the session, which are not made for threads
        self._making_clients = threading.Lock()

    async def identify(self, credentials: AwsCredentials) -> CallerIdentity:
        """Whose the credentials are: GetCallerIdentity, one attempt, 7 s at most. Changes nothing at AWS.

        Raises:
            CredentialsRefused: AWS refuses them.
            StsUnavailable: AWS does not answer, or has not for some time.
        """
        if not self._breaker.admits(self._clock()):
            _calls.labels("spared").inc()
            raise StsUnavailable("the circuit breaker is open")
        try:
            async with asyncio.timeout(_TOTAL_SECONDS):
                caller = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, credentials)
        except (StsUnavailable, TimeoutError) as error:
            if not await self._answers_us(error):
                self._breaker.failed(self._clock())
            _calls.labels("failed").inc()
            raise error if isinstance(error, StsUnavailable) else StsUnavailable("time-out") from error
        except CredentialsRefused:
            self._breaker.succeeded()
            _calls.labels("refused").inc()
            raise
        self._breaker.succeeded()
        _calls.labels("answered").inc()
        return caller

    async def _answers_us(self, failure: Exception) -> bool:
        """Whether STS does answer a question without credentials: then the failure is the credentials' own.

        Credentials that are made up can bring a server to answer 500 or not at all, and must not shut it for everyone.
        """
        if isinstance(failure, StsUnreachable | TimeoutError):
            return False
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, None)
        except CredentialsRefused:
            return True
        except (StsUnavailable, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """Let the threads go; calls under way end by their time-outs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, credentials: AwsCredentials | None) -> CallerIdentity:
        client = None
        try:
            client = self._client(credentials)
            answer = client.get_caller_identity()
            return CallerIdentity(account=answer["Account"], arn=answer["Arn"], user_id=answer["UserId"])
        except ClientError as error:
            # from None: AWS's text may repeat what was signed
            raise _refusal(error) from None
        except (ConnectTimeoutError, EndpointConnectionError) as error:
            raise StsUnreachable(type(error).__name__) from None
        except (BotoCoreError, HTTPClientError, ResponseParserError, KeyError) as error:
            raise StsUnavailable(type(error).__name__) from None
        except OSError as error:
            raise StsUnreachable(type(error).__name__) from None
        finally:
            if client is not None:
                client.close()

    def _client(self, credentials: AwsCredentials | None) -> Any:
        with self._making_clients:
            return self._session.client(
                "sts",
                region_name=self._region,
                endpoint_url=self._endpoint_url,
                verify=True,
                config=_UNSIGNED if credentials is None else _CONFIG,
                **({} if credentials is None else _signing(credentials)),
            )


_CONFIG = Config(
    connect_timeout=_CONNECT_SECONDS,
    read_timeout=_READ_SECONDS,
    retries={"total_max_attempts": 1, "mode": "standard"},
    proxies={},
)


_UNSIGNED = _CONFIG.merge(Config(signature_version=UNSIGNED))


def _signing(credentials: AwsCredentials) -> dict[str, str | None]:
    return {
        "aws_access_key_id": credentials.access_key_id,
        "aws_secret_access_key": credentials.secret_access_key,
        "aws_session_token": credentials.session_token,
    }


def _session() -> boto3.session.Session:
    """A session that reads neither environment variables nor files."""
    defaults = botocore.session.Session.SESSION_VARIABLES
    isolated = {name: (None, None, default, cast) for name, (_, _, default, cast) in defaults.items()}
    for file in ("config_file", "credentials_file"):
        isolated[file] = (None, None, os.devnull, None)
    isolated["ignore_configured_endpoint_urls"] = (None, None, True, None)
    return boto3.session.Session(botocore_session=botocore.session.Session(session_vars=isolated))


def _refusal(error: ClientError) -> CredentialsRefused | StsUnavailable:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _BUSY_CODES or status == _TOO_MANY_REQUESTS or status >= _SERVER_ERROR:
        return StsUnavailable(code or str(status))
    log.info("aws_credentials_refused", code=code)
    return CredentialsRefused()
