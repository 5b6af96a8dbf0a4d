"""How long a crashing container waits in the simulator."""

import pytest

from deploy.local.cluster.kubelet.container_worker import back_off_of


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (1, 10), (2, 20), (5, 160), (6, 300), (1025, 300), (9999, 300)]
)
def test_the_back_off_doubles_up_to_five_minutes_and_stays_there(failures: int, seconds: float) -> None:
    assert back_off_of(10.0, failures) == seconds  # 2 to the power of 1024 is no float
