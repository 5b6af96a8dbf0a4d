"""Resource quantities such as `500m`, `16Gi` or `8`."""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

from kubernetes.utils.quantity import parse_quantity

_PATTERN = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3}|[KMGTPE]i|[numkMGTPE])?")
"""What the API server takes; the library takes more, such as `NaN`, `1_0` and `1K`."""


def parse(value: Any) -> Decimal:
    """The number that a quantity stands for; raises ValueError when it is none."""
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not known or not _PATTERN.fullmatch(str(value)):
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    return _number(str(value))


@lru_cache(1024)
def _number(text: str) -> Decimal:
    number: Decimal = parse_quantity(text)  # type: ignore[no-untyped-call]
    return number


def is_extended(resource: str) -> bool:
    """Whether a resource name is an extended one: counted in whole units, requests equal to limits."""
    return "/" in resource and not resource.startswith(("kubernetes.io/", "requests."))
