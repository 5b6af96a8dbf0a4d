"""Resource quantities such as `500m`, `16Gi` or `8`."""

import re
from decimal import Decimal
from typing import Any

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_PATTERN = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3})|([KMGTPE]i|[numkMGTPE])?)")


def parse(value: Any) -> Decimal:
    """The number that a quantity stands for; raises ValueError when it is none."""
    match = _PATTERN.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    if match is None or isinstance(value, bool):
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, exponent, suffix = Decimal(match[1]), match[2], match[3] or ""
    if exponent:
        return number * Decimal(10) ** int(exponent)
    if suffix in _BINARY:
        return number * Decimal(1024) ** _BINARY[suffix]
    return number * Decimal(10) ** _DECIMAL[suffix]


def is_extended(resource: str) -> bool:
    """Whether a resource name is an extended one: counted in whole units, requests equal to limits."""
    return "/" in resource and not resource.startswith(("kubernetes.io/", "requests."))
