"""`gpudev` with everything that any of its calls loads: for a process that loads it once and forks it for each call."""

from deploy.local.tools import first_process, image, jupyter, listing, ready, sshd
from deploy.local.tools.__main__ import main

__all__ = ["first_process", "image", "jupyter", "listing", "main", "ready", "sshd"]
