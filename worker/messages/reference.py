"""How a message, a binding or a person names a label schema: `name` or `name@version`."""

import re
from typing import NamedTuple

INLINE = "inline"
"""The name that stamps a label set carried by its message; no document may have it."""

SCHEMA_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""What a label schema may be called: no `@`, nothing that a file name or a header could not hold."""

_NAME = re.compile(SCHEMA_NAME)
_VERSION = re.compile(r"[0-9]{1,18}")


class SchemaReference(NamedTuple):
    """A label schema by name, and by version where one is pinned."""

    name: str
    version: int | None = None


def parse_reference(text: str) -> SchemaReference | None:
    """The schema that `text` names, or None where it can name none."""
    name, at, version = text.partition("@")
    if not _NAME.fullmatch(name) or name == INLINE:
        return None
    if not at:
        return SchemaReference(name)
    return SchemaReference(name, int(version)) if _VERSION.fullmatch(version) else None
