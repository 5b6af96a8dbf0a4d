"""PostgreSQL: SQLAlchemy Core describes tables and statements, asyncpg runs them."""

from shared.database.connection import Database, Executor, Row, Transaction
from shared.database.mapping import to_struct
from shared.database.statement import Statement, word

__all__ = ["Database", "Executor", "Row", "Statement", "Transaction", "to_struct", "word"]
