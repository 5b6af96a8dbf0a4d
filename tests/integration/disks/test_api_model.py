"""Random sequences of everything that disks can do, asked of the running service, beside a model.

`make soak-disks-api` takes DISK_API_STEPS steps, in walks of 500; DISK_API_SEED is the seed of the first walk.
"""

import os
import sys
import time
from collections import Counter

import pytest

from services.disks.settings import DisksSettings
from shared.database import Database
from tests.support.disk_api_walk import walk
from tests.support.servers import MotoServer

SOAK_STEPS = int(os.environ.get("DISK_API_STEPS", "0"))
FIRST_SEED = int(os.environ.get("DISK_API_SEED", "1"))
SOAK_WALK = 500


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_is_asked_in_whatever_order_is_answered_as_the_model_answers(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer, seed: int
) -> None:
    await walk(disks_settings, disks_database, moto_server, seed=seed, steps=100)


@pytest.mark.skipif(not SOAK_STEPS, reason="run by make soak-disks-api")
@pytest.mark.timeout(60 + SOAK_STEPS)
async def test_that_holds_for_long(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer
) -> None:
    tally: Counter[str] = Counter()
    began, taken, seed = time.monotonic(), 0, FIRST_SEED
    while taken < SOAK_STEPS:
        steps = min(SOAK_WALK, SOAK_STEPS - taken)
        tally += await walk(disks_settings, disks_database, moto_server, seed=seed, steps=steps)
        taken += steps
        rate = taken / (time.monotonic() - began)
        sys.stdout.write(f"seed {seed}: {taken} steps so far, {rate:.0f} a second\n")
        seed += 1
    sys.stdout.writelines(f"{times:8} {what}\n" for what, times in sorted(tally.items()))
