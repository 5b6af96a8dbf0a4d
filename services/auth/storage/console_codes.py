"""Statements on the console's one-time codes."""

import sqlalchemy as sa

from services.auth.storage.tables import console_codes
from shared.database import Statement
from shared.database.purge import delete_some

INSERT_CONSOLE_CODE = Statement(
    sa.insert(console_codes).values({name: sa.bindparam(name) for name in ("hash", "key_id", "user_id", "expires_at")})
)
# who deletes the row has used the code: of two at once the second waits for the first, and then finds nothing
USE_CONSOLE_CODE = Statement(
    sa.delete(console_codes)
    .where(
        console_codes.c.hash == sa.bindparam("hash"),
        console_codes.c.expires_at > sa.bindparam("now", type_=sa.DateTime(timezone=True)),
    )
    .returning(console_codes.c.key_id, console_codes.c.user_id)
)
PURGE_CONSOLE_CODES = delete_some(console_codes, console_codes.c.expires_at < sa.bindparam("before"))
