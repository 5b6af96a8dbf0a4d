import pytest

from shared.kubernetes import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("64", 64.0),
        ("500m", 0.5),
        ("1.5Gi", 1.5 * 2**30),
        ("2k", 2000.0),
        ("1e3", 1000.0),
        ("12E", 12e18),
        ("0", 0.0),
        (None, 0.0),
        ("", 0.0),
        ("much", 0.0),
        ("1Xi", 0.0),
    ],
)
def test_a_quantity_is_a_number(text: str | None, number: float) -> None:
    assert quantity(text) == number
