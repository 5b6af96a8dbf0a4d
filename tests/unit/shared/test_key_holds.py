import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from shared.api_key import new_api_key
from shared.contracts.auth import Identity
from shared.web.drain import Drain
from shared.web.key_holds import KeyHolds

pytestmark = pytest.mark.asyncio(loop_factories=["skipping"])
END = datetime(2030, 1, 1, tzinfo=UTC)
KEY = new_api_key()
IDENTITY = Identity(user_id=1, username="u", key_id=KEY.key_id, expires_at=END)


async def verify(_: str) -> Identity:
    return IDENTITY


async def test_a_held_answer_ends_when_its_key_does_by_the_clock_that_it_was_given() -> None:
    over = KeyHolds(verify, Drain(), clock=lambda: END)
    ended = await asyncio.wait_for(over.ended(KEY, IDENTITY), 1)
    assert ended.why == "it has expired"


async def test_a_held_answer_goes_on_as_long_as_its_key_is_good() -> None:
    before = KeyHolds(verify, Drain(), clock=lambda: END - timedelta(seconds=0.1))
    waiting = asyncio.create_task(before.ended(KEY, IDENTITY))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    waiting.cancel()
    await asyncio.wait([waiting])
