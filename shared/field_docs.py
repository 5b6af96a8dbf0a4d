"""The texts under the fields of a Struct, which Python itself throws away."""

import ast
import functools
import inspect
import itertools
import textwrap
import typing

import msgspec


@functools.cache
def field_docs(model: type[msgspec.Struct]) -> dict[str, str]:
    """What is written under each field of a Struct and of those that it extends, in one line."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if one is msgspec.Struct or not issubclass(one, msgspec.Struct):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        body = typing.cast("ast.ClassDef", tree).body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                name = typing.cast("ast.Name", field.target).id
                found[name] = " ".join(str(text.value.value).split())
    return found
