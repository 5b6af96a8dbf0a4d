"""Fixtures of the capacity service."""

from tests.support.capacity import capacity, capacity_dsn, capacity_schema

__all__ = ["capacity", "capacity_dsn", "capacity_schema"]
