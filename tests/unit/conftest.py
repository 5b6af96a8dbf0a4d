"""The event loop of what is about time: `pytestmark = pytest.mark.asyncio(loop_factories=["skipping"])`."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.support.skipping_loop import SkippingLoop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Those that are chosen by the marker, else the plain one."""
    marker = item.get_closest_marker("asyncio")
    chosen = marker is not None and "loop_factories" in marker.kwargs
    return {"skipping": SkippingLoop} if chosen else {"plain": asyncio.new_event_loop}
