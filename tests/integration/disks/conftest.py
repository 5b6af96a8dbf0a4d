"""Fixtures of the disks service."""

from tests.support.disks import disks, disks_database, disks_dsn, disks_schema, disks_settings, ec2

__all__ = ["disks", "disks_database", "disks_dsn", "disks_schema", "disks_settings", "ec2"]
