"""Pulling images, which exist in name only, or as a directory on this machine; and finding their programs."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_REFERENCE = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?)/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+:[0-9a-fA-F]{32,})?"
)
UNPULLABLE_MARK = "does-not-exist"
UNPULLABLE_TAG = ":missing"

Init = Callable[[Sequence[str], Mapping[str, str]], bool]
"""Does what a program would do with arguments in an environment, and prints nothing; False: it is to be executed."""


def is_valid(image: str) -> bool:
    """Whether the reference is well-formed; else a container waits with InvalidImageName."""
    return _REFERENCE.fullmatch(image) is not None


def can_be_pulled(image: str) -> bool:
    """Every image can, except those marked by `does-not-exist` in the name or by the tag `missing`."""
    return UNPULLABLE_MARK not in image and not image.endswith(UNPULLABLE_TAG)


def pull_error(image: str) -> str:
    """The message of ErrImagePull."""
    return (
        f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": '
        "pull access denied, repository does not exist or may require authorization"
    )


def resolve(argv: Sequence[str], image: str, root: Path, directories: Mapping[str, Path]) -> list[str]:
    """The program to execute: an absolute path counts below the container's root, then in its image, then on the host.

    Args:
        argv: as the container, the exec call or the probe has it.
        image: the container's image.
        root: the directory with the container's mounts.
        directories: images that have files here.
    """
    if not argv or not argv[0].startswith("/"):
        return list(argv)
    relative = os.path.normpath(argv[0]).lstrip("/")
    places = [root, directories[image]] if image in directories else [root]
    for place in places:
        if (place / relative).is_file():
            return [str(place / relative), *argv[1:]]
    return list(argv)
