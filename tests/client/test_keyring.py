"""The key in a keyring: the library is the real one, and its keyring a file."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.client.scripted import says, scripted
from tests.client.test_command import KEYS, ROOT, Person, login, new_key


class Ring:
    """A keyring, and what a shell has to say to use it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keyring"
        self.settings = {
            "PYTHON_KEYRING_BACKEND": "tests.client.file_keyring.FileKeyring",
            "KEYRING_FILE": str(self._path),
            "PYTHONPATH": f"{ROOT / 'client' / 'src'}:{ROOT}",
        }

    @property
    def held(self) -> dict[str, Any]:
        return {name: json.loads(secret) for name, secret in json.loads(self._path.read_text()).items()}

    def age(self, *, minutes_left: float) -> None:
        """Its key as it will be later."""
        now = datetime.now(UTC)
        times = {"obtained_at": now - timedelta(hours=2), "expires_at": now + timedelta(minutes=minutes_left)}
        ((name, key),) = self.held.items()
        aged = {**key, **{field: moment.isoformat() for field, moment in times.items()}}
        self._path.write_text(json.dumps({name: json.dumps(aged)}))


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path)


def files(person: Person) -> str:
    return "".join(path.read_text() for path in person.config.iterdir())


async def test_a_key_in_the_keyring_is_in_no_file_and_is_renewed_there(person: Person, ring: Ring) -> None:
    async with scripted(login(), says(new_key("gpudev_second_secret", 2)), KEYS, KEYS) as server:
        code, _, told = await person.log_in(server.url, "--keyring", **ring.settings)
        assert code == 0, told
        assert [key["api_key"] for key in ring.held.values()] == ["gpudev_first_secret"]
        ring.age(minutes_left=10)
        assert (await person.run("keys", **ring.settings))[0] == 0
        assert (await person.run("keys", **ring.settings))[0] == 0
    assert [one["headers"]["authorization"].split("_")[1] for one in server.seen[1:]] == ["first", "second", "second"]
    assert [key["api_key"] for key in ring.held.values()] == ["gpudev_second_secret"]
    assert "secret" not in files(person)


async def test_the_next_log_in_keeps_it_where_it_was_and_logging_out_forgets_it(person: Person, ring: Ring) -> None:
    gone = says({"key_prefix": "gpudev_first", "status": "revoked", "revoked_at": "2026-01-20T18:30:00Z"})
    async with scripted(login(), login(), gone) as server:
        await person.log_in(server.url, "--keyring", **ring.settings)
        await person.log_in(server.url, **ring.settings)
        assert "secret" not in files(person)
        assert len(ring.held) == 1
        assert (await person.run("logout", **ring.settings))[0] == 0
    assert ring.held == {}
    assert (await person.run("list", **ring.settings))[0] == 3


async def test_a_keyring_that_is_away_says_what_to_do_and_is_left_for_a_file(person: Person, ring: Ring) -> None:
    away = {**ring.settings, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    async with scripted(login()) as server:
        code, _, told = await person.log_in(server.url, "--keyring", **away)
        assert code == 2
        assert "--no-keyring" in told
        assert server.seen == [], "no key is made that has no place"
        await person.log_in(server.url, "--keyring", **ring.settings)
        code, _, told = await person.run("list", **away)
        assert "--no-keyring" in told
        assert (await person.log_in(server.url, "--no-keyring", **away))[0] == 0
    assert person.key["api_key"] == "gpudev_first_secret"
