"""GPU Dev's API for Python programs: `Client`, with blocking calls, and `AsyncClient`, with awaited ones."""

from gpudev import errors, models
from gpudev.client import AsyncClient, Client
from gpudev.errors import GpuDevError

__all__ = ["AsyncClient", "Client", "GpuDevError", "errors", "models"]
