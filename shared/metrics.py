"""Metrics that more than one service sets; each in its own process."""

from prometheus_client import Gauge

ORPHANS = Gauge("gpudev_orphans", "Objects outside that no row of ours explains, as found by the last sweep", ["kind"])
