"""A mark of all changes of nodes, leases and pods: who knows them need not read them again while it is the same.

Each statement that changes some adds a row with a number by chance, so that two sets of changes have two sums, after a
restore of the database too. A loop folds the rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_TABLES = ("nodes", "gpu_pods", "leases")
_CHANGES = {"insert": "NEW", "update": "NEW", "delete": "OLD"}


def upgrade() -> None:
    op.create_table("fleet_changes", sa.Column("mark", sa.Numeric, nullable=False))
    op.execute("""
        CREATE FUNCTION mark_fleet_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM changed) THEN
                INSERT INTO fleet_changes (mark) VALUES (1 + floor(random() * 4294967296));
            END IF;
            RETURN NULL;
        END $$
    """)
    for table in _TABLES:
        for change, rows in _CHANGES.items():
            op.execute(f"""
                CREATE TRIGGER mark_fleet_{change} AFTER {change.upper()} ON {table} REFERENCING {rows} TABLE AS changed
                FOR EACH STATEMENT EXECUTE FUNCTION mark_fleet_change()
            """)


def downgrade() -> None:
    for table in _TABLES:
        for change in _CHANGES:
            op.execute(f"DROP TRIGGER mark_fleet_{change} ON {table}")
    op.execute("DROP FUNCTION mark_fleet_change()")
    op.drop_table("fleet_changes")
