import pytest
from alembic.script import ScriptDirectory

from shared.database.schema import migrations
from shared.routes import SERVICES, ServiceName


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_are_numbered_one_after_the_other(service: ServiceName) -> None:
    """Readiness compares numbers, and reads the newest from the files' names."""
    scripts = list(ScriptDirectory(str(migrations(service))).walk_revisions())
    files = sorted((path.stem for path in (migrations(service) / "versions").glob("[0-9]*.py")), reverse=True)
    assert [script.revision for script in scripts] == [name[:4] for name in files]
    assert [int(script.revision) for script in scripts] == list(range(len(scripts), 0, -1))
