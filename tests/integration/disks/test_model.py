"""Random sequences of everything that disks can do, asked of the running service, beside a model.

`make soak-disks` takes 10,000 steps: DISK_WALKS walks of DISK_STEPS steps, the first of which has the seed DISK_SEED.
"""

import os
import sys
import time

import pytest

from services.disks.settings import DisksSettings
from shared.database import Database
from tests.support.disk_walk import walk
from tests.support.servers import MotoServer

STEPS = int(os.environ.get("DISK_STEPS", "100"))
FIRST_SEED = int(os.environ.get("DISK_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("DISK_WALKS", "3")))


@pytest.mark.timeout(60 + STEPS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_asked_in_whatever_order_is_answered_as_the_model_answers(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer, seed: int
) -> None:
    began = time.monotonic()
    tally = await walk(disks_settings, disks_database, moto_server, seed=seed, steps=STEPS)
    sys.stdout.write(f"seed {seed}: {STEPS} steps, {STEPS / (time.monotonic() - began):.0f} a second\n")
    sys.stdout.writelines(f"{times:8} {what}\n" for what, times in sorted(tally.items()))
