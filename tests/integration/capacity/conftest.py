"""Fixtures of the capacity service."""

from tests.support.capacity import capacity, capacity_dsn, capacity_schema
from tests.support.capacity_stage import stage

__all__ = ["capacity", "capacity_dsn", "capacity_schema", "stage"]
