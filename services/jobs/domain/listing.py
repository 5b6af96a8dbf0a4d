"""What is on a pod's disk, as `gpudev listing` of the tools prints it (deploy/images/tools/README.md)."""

from collections.abc import Iterator

from shared.contracts.disks import Listing, ListingEntry
from shared.untrusted import decode_untrusted

MAX_ENTRIES = 2000
MAX_PATH_BYTES = 400_000
"""Of all paths together: a message on NATS has a megabyte at most."""

_MAX_BYTES = 1 << 20


def read_listing(text: bytes | str) -> Listing | None:
    """The listing, with no more entries than a message takes; None when the text is none.

    Whoever runs the pod may have written the text themselves.
    """
    listing = decode_untrusted(text, Listing, max_bytes=_MAX_BYTES)
    if listing is None:
        return None
    entries = list(_fitting(listing.entries[:MAX_ENTRIES]))
    return Listing(
        size_bytes=listing.size_bytes,
        entries=entries,
        truncated=listing.truncated or len(entries) < len(listing.entries),
    )


def _fitting(entries: list[ListingEntry]) -> Iterator[ListingEntry]:
    left = MAX_PATH_BYTES
    for entry in entries:
        left -= len(entry.path.encode(errors="surrogatepass"))
        if left < 0:
            return
        yield entry
