"""The page docs/configuration.md, from the configuration itself: `python -m worker.config_page`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from worker.config import Config
from worker.documents import inner_model

_HEAD = """# Configuration

Written by `python -m worker.config_page` from `worker/config.py`; a test keeps it up to date.

One tree.
The command line goes before the environment, that before the file, that before the defaults.
An environment variable is named `WORKER_` and the key in capitals, `__` for each dot: `WORKER_KAFKA__GROUP_ID`.
Unknown keys are errors. Relative paths in the file start from its folder.
Passwords are taken from the environment or from files, never from the configuration.

| key | default | what it is |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(f"| `{key}` | {default} | {text} |\n" for key, default, text in _rows(Config, ""))


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        if field.description == "Reserved.":
            continue
        inner, is_list = inner_model(field.annotation), get_origin(field.annotation) is tuple
        key = f"{prefix}{name}"
        if inner is not None:
            is_left_out = not field.is_required() and field.get_default() is None
            if is_list or is_left_out:
                yield key, _default(field), field.description or ""
            rows = _rows(inner, f"{key}[]." if is_list else f"{key}.")
            yield from (_if_given(row, key) for row in rows) if is_left_out else rows
        else:
            yield key, _default(field), (field.description or "").replace("|", "\\|")


def _if_given(row: tuple[str, str, str], part: str) -> tuple[str, str, str]:
    """What is required of a part that may be left out."""
    key, default, text = row
    return key, f"required in `{part}`" if default == "required" else default, text


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Path | SecretStr):
        return f"`{value}`"
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(page())
