"""How PostgreSQL would run the statements of a service, for any values of their parameters."""

import importlib
import pkgutil
import re
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any

import msgspec

from shared.database import Statement
from tests.support.harness import connected

_PARAMETER = re.compile(r"\$(\d+)")


def statements(package: ModuleType) -> Iterator[tuple[str, Statement]]:
    """Those of all modules of a package, by module and name."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if isinstance(value, Statement):
                yield f"{found.name.rpartition('.')[2]}.{name}", value


async def readers_of_whole_tables(dsn: str, package: ModuleType, tables: Collection[str]) -> set[str]:
    """Statements of a package whose plan reads one of these tables from its beginning to its end.

    The plan is the one that PostgreSQL makes once, for any parameters. The tables should be large, and analyzed.
    """
    found = set()
    async with connected(dsn) as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        for number, (name, statement) in enumerate(statements(package)):
            await connection.execute(f"PREPARE plan_{number} AS {statement.sql}")
            nulls = ", ".join(["NULL"] * max((int(one) for one in _PARAMETER.findall(statement.sql)), default=0))
            asked = f"EXPLAIN (FORMAT JSON) EXECUTE plan_{number}" + (f"({nulls})" if nulls else "")
            (plan,) = msgspec.json.decode(await connection.fetchval(asked))
            if any(one["Node Type"] == "Seq Scan" and one["Relation Name"] in tables for one in _nodes(plan["Plan"])):
                found.add(name)
    return found


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
