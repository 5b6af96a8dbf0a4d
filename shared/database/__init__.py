"""PostgreSQL: SQLAlchemy Core describes tables and statements, asyncpg runs them."""

from shared.database.conditions import among, in_states, word
from shared.database.connection import Database, Executor, Row, Transaction
from shared.database.mapping import to_struct
from shared.database.statement import Statement

__all__ = ["Database", "Executor", "Row", "Statement", "Transaction", "among", "in_states", "to_struct", "word"]
