"""Tables of states: each event leads from the states that it is possible in to one other.

The statements that write a state take their conditions from these tables, so that no statement has a rule of its own.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

StateT = TypeVar("StateT", bound=StrEnum)
EventT = TypeVar("EventT", bound=StrEnum)


class Transition(msgspec.Struct, Generic[StateT], frozen=True):
    sources: tuple[StateT, ...]
    """In every other state the event changes nothing."""
    target: StateT


def state_after(table: Mapping[EventT, Transition[StateT]], state: StateT, event: EventT) -> StateT | None:
    """The state that follows; None when the event changes nothing in this one."""
    transition = table[event]
    return transition.target if state in transition.sources else None
