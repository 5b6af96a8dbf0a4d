"""What is said of how late the machine wakes whoever is to run."""

from tests.bench.floor import Floor, in_words


def test_times_are_of_all_cores_and_the_share_is_of_one() -> None:
    found = in_words([Floor(seconds=4.0, late=[0.002, 0.003]), Floor(seconds=4.0, late=[0.0035])])
    assert found.startswith("0.8 times a second a core woke over 1 ms late, 3.5 ms at most, 0.11 % of the time, ")


def test_a_machine_that_is_never_late_is_called_so() -> None:
    assert in_words([Floor(seconds=4.0, late=[])]) == "no core ever woke more than 1 ms late"
