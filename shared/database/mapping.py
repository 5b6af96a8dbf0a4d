"""Rows as the values that the rules work on."""

from typing import Any, TypeVar

import msgspec

from shared.database.connection import Row

StructT = TypeVar("StructT", bound=msgspec.Struct)


def to_struct(row: Row, model: type[StructT], **computed: Any) -> StructT:
    """The value of a row that has a column for every field of `model`; other columns are left out.

    Args:
        row: From a statement that selects a column of the name of each field.
        model: Whose fields have no other names on the wire.
        computed: Fields that are no columns, or have another value than theirs.

    Raises:
        KeyError: The statement lacks the column of a field. A field's default never stands in for it: such a mistake
            in a statement would go unseen.
        msgspec.ValidationError: A column holds what the field cannot.
    """
    values = {name: computed[name] if name in computed else row[name] for name in model.__struct_fields__}
    return msgspec.convert(values, model)
