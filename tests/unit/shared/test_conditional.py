"""Which tags mean that the client has an answer."""

import pytest

from shared.web.conditional import Encoded, conditional, is_known

TAG = '"abc"'


@pytest.mark.parametrize("given", ['"abc"', 'W/"abc"', '"x", "abc"', '"x",W/"abc" , "y"', "*", " * ", '"a,b", "abc"'])
@pytest.mark.parametrize("tag", [TAG, f"W/{TAG}"])
def test_the_client_has_it(given: str, tag: str) -> None:
    assert is_known(given, tag)


@pytest.mark.parametrize("given", [None, "", '"x"', "abc", '"abcd"', '"ab", "c"', '"*"', "w/abc", '"'])
def test_the_client_has_it_not(given: str | None) -> None:
    assert not is_known(given, TAG)


def test_an_answer_that_the_client_has_is_its_tag_alone() -> None:
    answer = conditional(Encoded(b"{}", TAG), TAG)
    assert (answer.status, answer.headers, answer.body) == (304, ((b"etag", b'"abc"'),), b"")
    assert conditional(Encoded(b"{}", TAG), None).body == b"{}"
