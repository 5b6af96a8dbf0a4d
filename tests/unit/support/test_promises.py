import os
import time
from pathlib import Path

import pytest

from tests.support import promises
from tests.support.promises import MOST, Stopwatch, promised

TOLD = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9000000\n"


def test_whatever_the_machine_does_there_is_an_end_to_patience() -> None:
    with pytest.raises(AssertionError, match=r"it took .* s, and 0.05 s are promised"), promised(0.05):
        time.sleep(2 * MOST * 0.05)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel tells of this machine is not told here."""
    monkeypatch.setattr(promises, "_PRESSURE", tmp_path)
    monkeypatch.setattr(promises, "_STAT", tmp_path / "stat")


@pytest.mark.parametrize("what", ["cpu", "io"])
def test_time_in_which_a_program_waited_for_a_processor_or_a_disk_is_not_the_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    pressure = tmp_path / what
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pressure.write_text(TOLD.format(5_000_000))
    watch = Stopwatch()
    now[0] += 8
    pressure.write_text(TOLD.format(8_500_000))
    assert watch.seconds() == 4.5
    pressure.write_text(TOLD.format(13_000_000))
    assert watch.seconds() == 8 / MOST


def test_time_in_which_the_host_let_a_processor_wait_is_not_the_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, stat = [100.0], tmp_path / "stat"
    told = "cpu  9 9 9 9 9 9 9 999999 0 0\ncpu0 9 9 9 9 9 9 9 50 0 0\ncpu1 9 9 9 9 9 9 9 {} 0 0\nintr 1 2 3\n"
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    stat.write_text(told.format(100))
    watch = Stopwatch()
    now[0] += 8
    stat.write_text(told.format(450))
    assert watch.seconds() == 4.5


def test_where_the_kernel_does_not_tell_all_of_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = Stopwatch()
    now[0] += 8
    assert watch.seconds() == 8
