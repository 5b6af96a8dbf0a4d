"""Random sequences of everything that can happen to disks, deaths and trouble with AWS in between, against a model.

`make soak-disks` walks 10,000 steps; DISK_STEPS and DISK_SEED choose others.
"""

import os
import random
import sys
import time

import msgspec
import pytest

from services.disks.settings import DisksSettings
from shared.database import Database
from tests.support.aws_proxy import BadDays, before_aws
from tests.support.disk_walk import Walk
from tests.support.servers import MotoServer

STEPS = int(os.environ.get("DISK_STEPS", "250"))
SEEDS = [int(os.environ["DISK_SEED"])] if "DISK_SEED" in os.environ else [1, 2]


@pytest.mark.timeout(60 + STEPS // 2)
@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_disks_are_what_the_model_says_and_aws_holds_what_the_tables_say(
    disks_settings: DisksSettings, disks_database: Database, moto_server: MotoServer, seed: int
) -> None:
    trouble = BadDays(random.Random(seed))
    async with before_aws(moto_server.endpoint_url, trouble) as endpoint_url:
        settings = msgspec.structs.replace(disks_settings, aws_endpoint_url=endpoint_url)
        walk = Walk(settings, disks_database, moto_server.client("ec2"), trouble, seed)
        began = time.monotonic()
        await walk.run(STEPS)
    seconds = time.monotonic() - began
    told = [f"seed {seed}: {STEPS} steps in {seconds:.0f} s, {STEPS / seconds:.0f} a second"]
    told += [f"{times:8} {done}" for done, times in sorted(walk.tally.items())]
    sys.stdout.write("\n".join(told) + "\n")
