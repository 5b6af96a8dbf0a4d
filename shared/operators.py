"""What only operators may do."""

from shared.contracts.auth import Identity
from shared.errors import OperatorsOnly


def check_operator(asker: Identity, what: str) -> None:
    """Whether they may.

    Args:
        asker: Who asks.
        what: Follows "Only operators may".

    Raises:
        OperatorsOnly: They are no operator.
    """
    if not asker.is_operator:
        raise OperatorsOnly(what)
