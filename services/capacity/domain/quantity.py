"""Kubernetes quantities: '500m', '64', '1.5Gi', '1e3'.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from decimal import Decimal, InvalidOperation

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal("1e3"),
    "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"), "P": Decimal("1e15"), "E": Decimal("1e18"),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip


def amount(quantity: str | None) -> float:
    """The number that a quantity means; 0 for None and for what is none."""
    text = quantity or "0"
    for suffix in (text[-2:], text[-1:], ""):
        if suffix in _SUFFIXES:
            try:
                return float(Decimal(text.removesuffix(suffix)) * _SUFFIXES[suffix])
            except InvalidOperation:
                continue
    return 0.0
