"""Image references, by the grammar of the distribution project (https://pkg.go.dev/github.com/distribution/reference)."""

import re

MAX_IMAGE_LENGTH = 512

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])"
_DOMAIN = rf"{_HOST}(?::[0-9]{{1,5}})?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_DIGEST = rf"{_ALGORITHM}:[0-9a-fA-F]{{32,}}"
_REFERENCE = re.compile(rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::{_TAG})?(?:@{_DIGEST})?")
_SHA256 = re.compile(r"@sha256:(?![0-9a-fA-F]{64}$)")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


def is_image_reference(text: str) -> bool:
    """Whether `text` names an image: registry/name:tag@digest, of which only the name must be there."""
    if len(text) > MAX_IMAGE_LENGTH or _BARE_ID.fullmatch(text):
        return False
    return _REFERENCE.fullmatch(text) is not None and _SHA256.search(text) is None
