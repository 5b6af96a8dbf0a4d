"""Taints that jobs' pods tolerate beside the GPUs' own: jobs writes them into pods, capacity reads nodes by them."""

from collections.abc import Iterable
from typing import Literal

import msgspec


class Toleration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """As in a pod."""

    key: str = ""
    """Empty, with Exists: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Empty: any."""

    def tolerates(self, key: str, value: str, effect: str) -> bool:
        """Whether the taint is one that is meant."""
        if self.effect not in {"", effect}:
            return False
        if self.operator == "Exists":
            return self.key in {"", key}
        return (self.key, self.value) == (key, value)


def parse_tolerations(text: str) -> tuple[Toleration, ...]:
    """Out of a JSON list as a pod has it, such as `[{"key": "team", "value": "ml", "effect": "NoSchedule"}]`.

    Raises:
        ValueError: It is none; msgspec's errors are such.
    """
    tolerations = msgspec.json.decode(text or "[]", type=tuple[Toleration, ...])
    for toleration in tolerations:
        if not toleration.key and toleration.operator != "Exists":
            raise ValueError("a toleration without a key wants the operator Exists")
        if toleration.operator == "Exists" and toleration.value:
            raise ValueError("a toleration with the operator Exists has no value")
    return tolerations


def tolerated(tolerations: Iterable[Toleration], key: str, value: str, effect: str) -> bool:
    """Whether one of them tolerates the taint."""
    return any(toleration.tolerates(key, value, effect) for toleration in tolerations)
