"""Fixtures of every tier."""

pytest_plugins = ["tests.support.servers", "tests.support.ground"]
