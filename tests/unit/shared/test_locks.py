"""Names of advisory locks, and that they are the only way to one."""

import re
from pathlib import Path

import pytest

from shared.database.locks import lock_key

SOURCES = [
    path
    for folder in ("services", "shared")
    for path in (Path(__file__).parents[3] / folder).rglob("*.py")
    if path.name != "locks.py"
]
NAMED = re.compile(r'(?:\b(?:try|wait_for)_(?:\w+_)?lock\(|\block=|_LOCK = )"(\w+)"')
OF_ITS_OWN = re.compile(r"pg_(?:try_)?advisory\w*lock|hashtext|lock_key")
KEYS = {
    "disk": 0x6469736B,
    "fold": 0x666F6C64,
    "gpud": 0x67707564,
    "hist": 0x68697374,
    "hook": 0x686F6F6B,
    "inbx": 0x696E6278,
    "line": 0x6C696E65,
    "orph": 0x6F727068,
    "outb": 0x6F757462,
    "plac": 0x706C6163,
    "purg": 0x70757267,
    "swep": 0x73776570,
    "tell": 0x74656C6C,
    "wait": 0x77616974,
}


@pytest.mark.parametrize("name", KEYS)
def test_a_name_keeps_its_key_so_that_replicas_of_two_versions_exclude_each_other(name: str) -> None:
    assert lock_key(name) == KEYS[name]
    assert 0 < lock_key(name) < 2**31


def test_each_lock_has_a_name_of_its_own() -> None:
    names = [name for path in SOURCES for name in NAMED.findall(path.read_text())]
    assert sorted(names) == sorted(KEYS)


def test_no_lock_is_taken_but_by_its_name() -> None:
    assert [path.name for path in SOURCES if OF_ITS_OWN.search(path.read_text())] == []


@pytest.mark.parametrize("name", ["", "abc", "abcde", "abc1", "ab d", "äbcd"])
def test_another_name_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="4 ASCII letters"):
        lock_key(name)
