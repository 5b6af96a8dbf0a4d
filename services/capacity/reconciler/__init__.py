"""The loops that make the tables match the cluster, and the line match the tables."""

from services.capacity.reconciler.fleet import NodeWatch, PodWatch
from services.capacity.reconciler.placer import Placer

__all__ = ["NodeWatch", "Placer", "PodWatch"]
