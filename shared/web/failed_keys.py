"""How many keys that nobody was given a client may have checked: each costs a question to auth."""

import math

import msgspec

from shared.clock import Stopwatch
from shared.errors import RateLimited

_MAX_ADDRESSES = 10_000


class _Bucket(msgspec.Struct):
    tokens: float
    at: float
    """Reading of the stopwatch at which it held them."""


class FailedKeys:
    """A bucket of tokens for each address: a check takes one, and gives it back unless it fails.

    Of this process alone: as many replicas there are, so many times it may be tried.

    Args:
        per_minute: Failures of an address, also at once.
        stopwatch: Seconds that only grow.
    """

    def __init__(self, per_minute: int, stopwatch: Stopwatch) -> None:
        self._most = per_minute
        self._per_second = per_minute / 60
        self._stopwatch = stopwatch
        self._buckets: dict[str, _Bucket] = {}

    def take(self, address: str) -> None:
        """Count a check before it is made.

        Raises:
            RateLimited: The address has had its share of failures.
        """
        now = self._stopwatch()
        bucket = self._buckets.pop(address, None) or _Bucket(self._most, now)
        bucket.tokens = min(self._most, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        if len(self._buckets) >= _MAX_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]  # the one that was looked at longest ago
        self._buckets[address] = bucket
        if bucket.tokens < 1:
            seconds = math.ceil((1 - bucket.tokens) / self._per_second)
            raise RateLimited("Too many invalid API keys, try again later", retry_after_seconds=seconds)
        bucket.tokens -= 1

    def give_back(self, address: str) -> None:
        """Forget a check that did not fail."""
        bucket = self._buckets.get(address)
        if bucket is not None:
            bucket.tokens += 1
