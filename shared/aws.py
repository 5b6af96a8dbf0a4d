"""AWS as services call it: blocking boto3 on a bounded number of threads, one attempt a call, short time-outs.

Who calls decides what to do about an error: boto3 itself tries nothing again. What an answer means is the services'
business.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)
from botocore.parsers import ResponseParserError

_CONNECT_SECONDS = 2
_THREADS = 8
_TOO_MANY_REQUESTS, _SERVER_FAULT = 429, 500
_BUSY = frozenset({"ServiceUnavailable", "InternalFailure", "InternalError"})
_TALKATIVE = ("boto3", "botocore", "urllib3")

ResultT = TypeVar("ResultT")


class AwsError(Exception):
    """AWS answered with an error. Its message may repeat what was signed: it is for who asked, not for a log.

    Args:
        code: Of AWS' vocabulary; empty when it told none.
        message: For a person; likewise.
        status: Of HTTP.
    """

    def __init__(self, *, code: str, message: str, status: int) -> None:
        super().__init__(code or str(status))
        self.code = code
        self.message = message
        self.status = status

    @property
    def is_throttling(self) -> bool:
        """Whether it was refused for coming too often: nothing was done."""
        return self.status == _TOO_MANY_REQUESTS or "Throttl" in self.code or "Exceeded" in self.code

    @property
    def is_fault(self) -> bool:
        """Whether the fault is AWS' own: the call may have had its effect."""
        return not self.is_throttling and (self.status >= _SERVER_FAULT or self.code in _BUSY)


class AwsSilent(Exception):
    """AWS gave no answer, or none that can be read.

    Args:
        cause: Name of the error beneath.
        sent: Whether the call may have had its effect; False: there was no connection.
    """

    def __init__(self, cause: str, *, sent: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.sent = sent


class AwsService:
    """One service of AWS in one region.

    Args:
        name: As boto3 calls it: ec2, sts.
        region: AWS region.
        endpoint_url: None: AWS itself.
        read_seconds: Until an answer, at most.
        session: Makes the session, when the first call is made: it may read files and ask for credentials.
        proxied: False: the environment's proxies are not asked.
    """

    def __init__(
        self,
        name: str,
        *,
        region: str,
        endpoint_url: str | None,
        read_seconds: int,
        session: Callable[[], Any] = boto3.session.Session,
        proxied: bool = True,
    ) -> None:
        self._name = name
        self._where = {"region_name": region, "endpoint_url": endpoint_url}
        self._config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=_THREADS,
            proxies=None if proxied else {},
        )
        self._make_session = session
        self._session: Any = None
        self._client: Any = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        # making clients shares caches of the session, which are not made for threads
        self._making = threading.Lock()
        for logger in _TALKATIVE:
            # at debug these log what they sign and send, credentials with it
            logging.getLogger(logger).setLevel(logging.WARNING)

    async def call(self, use: Callable[[Any], ResultT]) -> ResultT:
        """What `use` makes of the service's own client, on a thread. As idempotent as what it calls.

        Raises:
            AwsError: AWS answered with an error.
            AwsSilent: It did not answer.
        """
        return await self._on_thread(partial(self._use_own, use))

    async def call_as(self, use: Callable[[Any], ResultT], config: Config | None = None, **signing: Any) -> ResultT:
        """As `call`, with a client made for this one call, that is signed or set up in another way.

        Args:
            use: Calls the client.
            config: What is set up in another way.
            signing: Credentials, as boto3 takes them.
        """
        return await self._on_thread(partial(self._use_new, use, config, signing))

    async def close(self) -> None:
        """Take no more calls; what is under way ends by its time-outs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _translated, work)

    def _use_own(self, use: Callable[[Any], ResultT]) -> ResultT:
        with self._making:
            if self._client is None:
                self._client = self._new_client(None, {})
        return use(self._client)

    def _use_new(self, use: Callable[[Any], ResultT], config: Config | None, signing: dict[str, Any]) -> ResultT:
        with self._making:
            made = self._new_client(config, signing)
        try:
            return use(made)
        finally:
            made.close()

    def _new_client(self, config: Config | None, signing: dict[str, Any]) -> Any:
        if self._session is None:
            self._session = self._make_session()
        settings = self._config if config is None else self._config.merge(config)
        return self._session.client(self._name, **self._where, config=settings, **signing)


def _translated(work: Callable[[], ResultT]) -> ResultT:
    try:
        return work()
    except ClientError as error:
        told = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_FAULT)
        # an empty element is read as None; from None: the text may repeat what was signed
        raise AwsError(code=told.get("Code") or "", message=told.get("Message") or "", status=status) from None
    except (EndpointConnectionError, ConnectTimeoutError) as error:
        raise AwsSilent(type(error).__name__, sent=False) from None
    except (BotoCoreError, HTTPClientError, ResponseParserError, OSError) as error:
        raise AwsSilent(type(error).__name__, sent=True) from None
