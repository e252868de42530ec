"""What the parts of the configuration are made of: strict models, and secrets out of files."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr

from worker.errors import ConfigError


class Part(BaseModel):
    """Settings that belong together: frozen, no unknown keys, no values in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def read_secret(value: SecretStr | None, file: Path | None, key: str) -> str | None:
    """The secret itself, or what the file holds, which `key` names.

    Raises:
        ConfigError: the file cannot be read.
    """
    if file is None:
        return value.get_secret_value() if value is not None else None
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{key}: expected a file that can be read, in UTF-8") from None


def path_text(path: Path | None) -> str | None:
    """The path as text."""
    return None if path is None else str(path)
