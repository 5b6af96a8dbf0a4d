import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.api_key import key_prefix, new_api_key, parse_api_key, parse_key_prefix

_ALPHABET = string.digits + string.ascii_letters


def test_a_new_key_is_read_back() -> None:
    key = new_api_key()
    read = parse_api_key(key.text)
    assert read is not None
    assert (read.key_id, read.text, read.hash) == (key.key_id, key.text, key.hash)


def test_keys_differ() -> None:
    keys = [new_api_key() for _ in range(100)]
    assert len({key.text for key in keys}) == len({key.key_id for key in keys}) == 100


def test_the_secret_has_at_least_160_bits() -> None:
    secret_and_checksum = new_api_key().text.split("_")[2]
    assert len(_ALPHABET) ** (len(secret_and_checksum) - 6) >= 2**160


@given(position=st.integers(0, 55), replacement=st.sampled_from(_ALPHABET + "_- \n\0é"))
def test_any_one_wrong_character_is_noticed(position: int, replacement: str) -> None:
    text = new_api_key().text
    typed = text[:position] + replacement + text[position + 1 :]
    assert typed == text or parse_api_key(typed) is None


@given(text=st.one_of(st.text(), st.from_regex(r"gpudev_[0-9A-Za-z]{0,12}_[0-9A-Za-z]{0,40}", fullmatch=True)))
def test_arbitrary_text_is_no_key(text: str) -> None:
    assert parse_api_key(text) is None


@pytest.mark.parametrize("change", ["{}\n", " {}", "{} ", "{}0", "x{}"])
def test_nothing_may_stand_around_a_key(change: str) -> None:
    assert parse_api_key(change.format(new_api_key().text)) is None


def test_the_prefix_begins_the_key_and_names_it() -> None:
    key = new_api_key()
    assert key.text.startswith(key.prefix + "_")
    assert key.prefix == key_prefix(key.key_id)
    assert parse_key_prefix(key.prefix) == key.key_id


@pytest.mark.parametrize(
    "text", ["", "gpudev_", "gpudev_short", "gpudev_0123456789x", "Gpudev_0123456789", "gpudev_012345678%"]
)
def test_other_text_is_no_prefix(text: str) -> None:
    assert parse_key_prefix(text) is None


def test_neither_repr_nor_hash_shows_the_secret() -> None:
    key = new_api_key()
    secret = key.text.split("_")[2]
    assert secret not in repr(key)
    assert secret not in f"{key}"
    assert secret not in key.hash
