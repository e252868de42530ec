"""What the parts of the configuration are made of: strict models, and secrets out of files."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from worker.errors import ConfigError

Positive = Annotated[int, Field(gt=0)]

ENV_PREFIX = "WORKER_"
ENV_DELIMITER = "__"


class Part(BaseModel):
    """Settings that belong together: frozen, no unknown keys, no values in errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def variable_of(key: str) -> str:
    """The environment variable of a key: `WORKER_KAFKA__SASL_PASSWORD` for `kafka.sasl_password`."""
    return ENV_PREFIX + key.upper().replace(".", ENV_DELIMITER)


def read_secret(value: SecretStr | None, file: Path | None, key: str, *, may_be_empty: bool = False) -> str | None:
    """The secret of `key`: itself, or what the file holds that `<key>_file` names.

    Raises:
        ConfigError: the file cannot be read, or the secret is empty.
    """
    if file is None:
        secret, place = None if value is None else value.get_secret_value(), key
    else:
        secret, place = _read_text(file, f"{key}_file"), f"{key}_file"
    if secret is not None and not secret.strip() and not may_be_empty:
        raise ConfigError(f"{place}: expected a secret that is not empty")
    return secret


def readable_path(path: Path | None, key: str, *, may_be_folder: bool = False) -> str | None:
    """The path as text, where `key` names one; the library that is given it would not say which key it is of.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
    """
    if path is None:
        return None
    try:
        if not (may_be_folder and path.is_dir()):
            with path.open("rb"):
                pass
    except OSError as error:
        raise ConfigError(_unreadable(key, error)) from None
    return str(path)


def all_or_problems(readers: Mapping[str, Callable[[], str | None]], known: Iterable[str] = ()) -> dict[str, str]:
    """What each of `readers` gives, where it gives something.

    Raises:
        ConfigError: the problems of all that fail, after those that are `known`.
    """
    found: dict[str, str] = {}
    problems = list(known)
    for name, read in readers.items():
        try:
            value = read()
        except ConfigError as error:
            problems.extend(error.problems)
        else:
            found |= {} if value is None else {name: value}
    if problems:
        raise ConfigError(*problems)
    return found


def _read_text(file: Path, key: str) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: expected a file that can be read, in UTF-8") from None
    except OSError as error:
        raise ConfigError(_unreadable(key, error)) from None


def _unreadable(key: str, error: OSError) -> str:
    # The path is not quoted: where somebody took the key for that of the secret itself, it is one.
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        places = f"a path in the configuration starts at its folder, one in {variable_of(key)} at the working directory"
        return f"{key}: expected a file that can be read; there is no such file ({places})"
    if isinstance(error, IsADirectoryError):
        return f"{key}: expected a file that can be read; it is a folder"
    return f"{key}: expected a file that can be read ({error.strerror or 'input/output error'})"
