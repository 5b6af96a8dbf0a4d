"""A SQLAlchemy Core statement compiled once, to be run by asyncpg.

SQLAlchemy's execution layer costs two to three times the query itself on hot reads; its expression language costs
nothing once it is compiled. So statements are written in it, as module constants, and run without it.
"""

from typing import Any

from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.sql import ClauseElement

_DIALECT = asyncpg.dialect()  # type: ignore[no-untyped-call]


class Statement:
    """SQL text and the order of its parameters.

    Args:
        clause: Any Core statement. Use `column == any_(bindparam(...))` in place of `in_`, whose length is only known
            when it runs. Bound literals keep their value; a `bindparam` without a value must be given at each run.

    Raises:
        TypeError: The clause needs a parameter list whose length is unknown (`in_`).
    """

    __slots__ = ("_defaults", "_names", "_required", "sql")

    def __init__(self, clause: ClauseElement) -> None:
        compiled: Any = clause.compile(dialect=_DIALECT)
        if compiled.post_compile_params:
            raise TypeError("in_() has no fixed SQL text; compare with any_() of an array")
        self.sql: str = compiled.string
        self._names: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._required = frozenset(name for name in self._names if compiled.binds[name].required)
        self._defaults = {name: compiled.binds[name].value for name in self._names}

    def arguments(self, parameters: dict[str, Any]) -> list[Any]:
        """Values in the order of the SQL's placeholders.

        Raises:
            TypeError: A parameter is missing, or one is not in the statement.
        """
        if not parameters.keys() >= self._required or not self._defaults.keys() >= parameters.keys():
            wrong = self._required - parameters.keys() | parameters.keys() - self._defaults.keys()
            raise TypeError(f"missing or unknown parameters {sorted(wrong)} for: {self.sql}")
        defaults = self._defaults
        return [parameters[name] if name in parameters else defaults[name] for name in self._names]
