"""Give the root of auth's image one more migration, which cannot be carried out: break_migrations.py ROOT."""

import sys
from pathlib import Path

VERSIONS = "usr/local/lib/python3.11/dist-packages/services/auth/migrations/versions"
BROKEN = """
from alembic import op

revision = "9999"
down_revision = "{before}"


def upgrade() -> None:
    op.execute("SELECT * FROM there_is_none")
"""

versions = Path(sys.argv[1]) / VERSIONS
newest = max(path.stem for path in versions.glob("[0-9]*.py"))
(versions / "9999_broken.py").write_text(BROKEN.format(before=newest.partition("_")[0]))
