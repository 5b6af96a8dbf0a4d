"""The Prefer header as RFC 7240 says it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.web.preferences import MAX_WAIT_SECONDS, read_wait


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=10", 10),
        ("Wait = 10", 10),
        ("wait=0", 0),
        ("wait=31", MAX_WAIT_SECONDS),
        ("wait=999999999", MAX_WAIT_SECONDS),
        ("respond-async, wait=5", 5),
        ("respond-async,wait=5;strict", 5),
        ('foo="a, wait=3", wait=7', 7),
        ('foo; bar="wait=3;, \\" wait=4", wait=7', 7),
        ("wait=4, wait=9", 4),
        ("wait=x, wait=9", None),
        ("", None),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=1 2", None),
        ("wait=9999999999", None),
        ("await=5", None),
        ("waiting=5", None),
        ("foo=bar", None),
        ('"wait=5', None),
        (",,;,", None),
    ],
)
def test_a_wait_is_read_and_what_is_not_understood_is_ignored(header: str, seconds: int | None) -> None:
    assert read_wait(header) == seconds


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_no_header_is_an_error(header: str) -> None:
    assert read_wait(header) in {None, *range(MAX_WAIT_SECONDS + 1)}
