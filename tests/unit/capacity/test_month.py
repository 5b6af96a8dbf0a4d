"""A few days of a small lab: backfill pays and the p90 holds. `make simulate-month` plays a month."""

from tests.support.month import Lab, Month

LAB = Lab(seed=7, days=10, users=40, nodes=8)


def test_backfill_shortens_the_wait_and_nine_of_ten_start_before_the_p90_they_were_told() -> None:
    ours, plain = Month(LAB).scenario_(), Month(LAB, backfill=False).scenario_()
    assert ours.mean_wait < 0.8 * plain.mean_wait
    assert ours.utilisation >= plain.utilisation - 0.005
    assert len(ours.in_time) > 100
    assert 0.85 <= ours.share_in_time <= 0.95


def test_a_month_of_the_same_seed_is_the_same_month() -> None:
    short = Lab(seed=3, days=2, users=20, nodes=4)
    assert Month(short).scenario_() == Month(short).scenario_()
