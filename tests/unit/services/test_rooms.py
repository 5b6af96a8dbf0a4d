"""Every service has the same rooms: who knows one service knows where things lie in all."""

from pathlib import Path

import pytest

from shared import routes

SERVICES = Path(__file__).parents[3] / "services"
ALWAYS = {"README.md", "__init__.py", "app.py", "settings.py", "context.py"}
WHERE_NEEDED = {
    "schemas.py",
    "schemas",  # a folder where one file would be too long
    "consumers.py",
    "api",
    "operations",
    "workers",
    "domain",
    "storage",
    "adapters",
    "migrations",
}
NAMES = [path.name for path in sorted(SERVICES.iterdir()) if path.is_dir() and path.name != "__pycache__"]


def contents(folder: Path) -> set[str]:
    """Names in a folder; what Python left of files that are gone is none of them."""
    return {path.name for path in folder.iterdir() if path.is_file() or any(path.glob("**/*.py"))}


@pytest.mark.parametrize("service", NAMES)
def test_a_service_has_the_rooms_that_all_have_and_no_other(service: str) -> None:
    found = contents(SERVICES / service)
    assert found >= ALWAYS
    assert found - ALWAYS <= WHERE_NEEDED


@pytest.mark.parametrize("service", NAMES)
def test_a_room_that_is_there_holds_something(service: str) -> None:
    rooms = [path for path in (SERVICES / service).iterdir() if path.is_dir() and path.name in WHERE_NEEDED]
    assert rooms
    for room in rooms:
        assert contents(room) - {"__init__.py"}, room


def test_there_are_the_services_that_the_routes_name() -> None:
    assert sorted(routes.SERVICES) == NAMES
