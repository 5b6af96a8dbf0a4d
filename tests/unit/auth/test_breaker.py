from services.auth.domain.breaker import CircuitBreaker


def opened() -> CircuitBreaker:
    breaker = CircuitBreaker(threshold=3, rest_seconds=5.0)
    for _ in range(3):
        assert breaker.admits(100.0)
        breaker.failed(100.0)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    assert not opened().admits(104.9)


def test_one_success_between_starts_the_count_anew() -> None:
    breaker = CircuitBreaker(threshold=3, rest_seconds=5.0)
    for failed in (True, True, False, True, True):
        breaker.failed(100.0) if failed else breaker.succeeded()
    assert breaker.admits(100.0)


def test_after_a_rest_one_trial_goes_through() -> None:
    breaker = opened()
    assert [breaker.admits(105.0) for _ in range(3)] == [True, False, False]


def test_a_good_trial_closes_it() -> None:
    breaker = opened()
    assert breaker.admits(105.0)
    breaker.succeeded()
    assert all(breaker.admits(105.0) for _ in range(10))


def test_a_bad_trial_means_another_rest() -> None:
    breaker = opened()
    assert breaker.admits(105.0)
    breaker.failed(107.0)
    assert not breaker.admits(111.9)
    assert breaker.admits(112.0)


def test_a_trial_that_never_reports_does_not_keep_it_open_for_ever() -> None:
    breaker = opened()
    assert breaker.admits(105.0)
    assert not breaker.admits(109.9)
    assert breaker.admits(110.0)
