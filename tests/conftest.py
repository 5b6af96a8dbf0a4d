"""Fixtures of every tier."""

from hypothesis import settings

pytest_plugins = ["tests.support.servers", "tests.support.harness"]

# how long an example takes depends on what else the machine does
settings.register_profile("gpudev", deadline=None)
settings.load_profile("gpudev")
