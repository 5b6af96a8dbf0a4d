import time
from pathlib import Path

import pytest

from tests.support import promises
from tests.support.promises import MOST, Stopwatch, promised

TOLD = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9000000\n"


def test_whatever_the_machine_does_there_is_an_end_to_patience() -> None:
    with pytest.raises(AssertionError, match=r"it took .* s, and 0.05 s are promised"), promised(0.05):
        time.sleep(2 * MOST * 0.05)


def test_time_in_which_a_program_waited_for_a_processor_is_not_the_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pressure = tmp_path / "cpu"
    now = [100.0]
    monkeypatch.setattr(promises, "_PRESSURE", pressure)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pressure.write_text(TOLD.format(5_000_000))
    watch = Stopwatch()
    now[0] += 8
    pressure.write_text(TOLD.format(8_500_000))
    assert watch.seconds() == 4.5
    pressure.write_text(TOLD.format(13_000_000))
    assert watch.seconds() == 8 / MOST


def test_where_the_kernel_does_not_tell_all_of_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(promises, "_PRESSURE", tmp_path / "none")
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = Stopwatch()
    now[0] += 8
    assert watch.seconds() == 8
