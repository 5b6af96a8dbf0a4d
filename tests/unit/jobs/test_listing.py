"""Listings out of text that whoever runs a pod may have written himself."""

import msgspec
import pytest

from services.jobs.domain.listing import MAX_ENTRIES, MAX_PATH_BYTES, read_listing
from shared.contracts.disks import Listing, ListingEntry


def listing(*paths: str, truncated: bool = False) -> Listing:
    return Listing(size_bytes=7, entries=[ListingEntry(path, "file", 1) for path in paths], truncated=truncated)


@pytest.mark.parametrize("text", ["", "hello", "{}", "null", "[]", '{"size_bytes": "7", "entries": []}', b"\xff\xfe"])
def test_what_is_no_listing_is_none(text: str | bytes) -> None:
    assert read_listing(text) is None


@pytest.mark.parametrize("truncated", [False, True])
def test_a_listing_is_taken_as_it_is(truncated: bool) -> None:
    told = listing("a", "b/c", "ü", truncated=truncated)

    assert read_listing(msgspec.json.encode(told)) == told


def test_too_many_entries_are_cut_and_said_to_be() -> None:
    read = read_listing(msgspec.json.encode(listing(*map(str, range(MAX_ENTRIES + 1)))))

    assert read is not None
    assert (len(read.entries), read.truncated, read.size_bytes) == (MAX_ENTRIES, True, 7)


def test_paths_fit_into_a_message_together() -> None:
    read = read_listing(msgspec.json.encode(listing(*["ü" * 1000] * 500)))

    assert read is not None
    assert (len(read.entries), read.truncated) == (MAX_PATH_BYTES // 2000, True)
    assert len(msgspec.json.encode(read)) < 1 << 20


def _told(size: str = "1", entry: str = '"path": "a", "type": "file", "size_bytes": 1', more: str = "") -> str:
    return f'{{"size_bytes": {size}, "entries": [{{{entry}}}]{more}}}'


@pytest.mark.parametrize(
    "text",
    [
        _told(size="9" * 330),
        _told(size="-1"),
        _told(size=str(2**63)),
        _told(size="1e400"),
        _told(size="1.5"),
        _told(size="9" * 5000),
        _told(entry='"path": "a", "type": "socket", "size_bytes": 1'),
        _told(entry='"path": "a", "type": "file", "size_bytes": -1'),
        _told(entry='"path": "a\\u0000b", "type": "file", "size_bytes": 1'),
        _told(entry='"path": "", "type": "file", "size_bytes": 1'),
        _told(entry='"path": "\\ud800", "type": "file", "size_bytes": 1'),
        _told(entry=f'"path": "{"a" * 5000}", "type": "file", "size_bytes": 1'),
        _told(more=', "more": ' + "[" * 100_000 + "]" * 100_000),
        "[" * 100_000,
        " " * (1 << 21) + "{}",
        b'{"size_bytes": 1, "entries": [{"path": "\xff", "type": "file", "size_bytes": 1}]}',
    ],
    ids=range(16),
)
def test_what_no_tool_of_ours_tells_is_no_listing(text: str | bytes) -> None:
    assert read_listing(_told()) is not None
    assert read_listing(text) is None
