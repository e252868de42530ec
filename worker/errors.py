"""Every error the worker raises on purpose, by what its catcher must do.

    WorkerError
    ├── MessageError      one record is at fault: it goes to the dead letter topic, its neighbours go on
    ├── ConfigError       the operator is at fault: exit 2, naming the file, the key and what was expected
    ├── SchemaError       a label schema is refused: exit 2 at start, the last good version stays while running
    ├── RetryableError    the world is at fault for now: wait, back off, try again
    ├── EngineOutOfMemoryError   a batch is too large for the memory there is: smaller ones, then on
    └── FatalError        going on would lose or double something: exit 1 with nothing committed
        └── EngineError   the engine cannot be loaded, or failed for every message it was given

Messages come from templates of our own and never quote a message's text, key, labels or headers.
"""

from enum import StrEnum


class WorkerError(Exception):
    """Root of the tree above."""


class ErrorCode(StrEnum):
    """Why a record is a dead letter: part of the wire contract, only ever added to.

    Listed in the order of the path; when several apply, the first wins.
    """

    VALUE_NULL = "value_null"
    PAYLOAD_INVALID = "payload_invalid"
    REGISTRY_SCHEMA_UNKNOWN = "registry_schema_unknown"
    UTF8_INVALID = "utf8_invalid"
    JSON_INVALID = "json_invalid"
    VALUE_TOO_DEEP = "value_too_deep"
    VALUE_NOT_OBJECT = "value_not_object"
    EXPIRED = "expired"
    ID_INVALID = "id_invalid"
    TEXT_MISSING = "text_missing"
    TEXT_NOT_STRING = "text_not_string"
    TEXT_EMPTY = "text_empty"
    TEXT_TOO_LARGE = "text_too_large"
    FIELD_INVALID = "field_invalid"
    OVERRIDE_FORBIDDEN = "override_forbidden"
    LABELS_INVALID = "labels_invalid"
    LABELS_TOO_MANY = "labels_too_many"
    LABEL_TOO_LONG = "label_too_long"
    LABELS_DUPLICATE = "labels_duplicate"
    TEMPLATE_INVALID = "template_invalid"
    LABELS_MISSING = "labels_missing"
    SCHEMA_UNKNOWN = "schema_unknown"
    SCHEMA_VERSION_UNKNOWN = "schema_version_unknown"
    TOO_MANY_PAIRS = "too_many_pairs"
    HYPOTHESIS_TOO_LONG = "hypothesis_too_long"
    ENGINE_FAILED = "engine_failed"
    MERGE_FIELD_TAKEN = "merge_field_taken"
    ENCODE_FAILED = "encode_failed"
    OUTPUT_TOO_LARGE = "output_too_large"


class Stage(StrEnum):
    """The step of the path at which a record was refused."""

    DECODE = "decode"
    RESOLVE = "resolve"
    PLAN = "plan"
    TOKENIZE = "tokenize"
    SCORE = "score"
    DECIDE = "decide"
    ENCODE = "encode"


class MessageError(WorkerError):
    """One record cannot be predicted; it goes to the dead letter topic with `code` and `reason`."""

    def __init__(self, code: ErrorCode, stage: Stage, reason: str) -> None:
        """`reason` is ours (a code, a field, a length): never a word of the message."""
        super().__init__(f"{code.value}: {reason}")
        self.code = code
        self.stage = stage
        self.reason = reason


class ConfigError(WorkerError):
    """The configuration cannot be used; the message names the file, the key and what was expected.

    Made with one such message for each thing that is wrong.
    """

    @property
    def problems(self) -> tuple[str, ...]:
        """Each thing that is wrong, in one line."""
        return tuple(" ".join(str(each).split()) for each in self.args)

    def __str__(self) -> str:
        """The messages, each on a line of its own."""
        return "\n".join(str(each) for each in self.args)


class SchemaError(WorkerError):
    """A label schema is refused; the message names the key and what was expected."""


class RetryableError(WorkerError):
    """Something outside is out of reach for now."""


class EngineOutOfMemoryError(WorkerError):
    """The engine has no memory for this batch; a smaller one may fit. Raised by engines only."""


class FatalError(WorkerError):
    """The process has to end, with nothing committed that was not finished."""


class EngineError(FatalError):
    """The engine cannot be loaded or cannot score."""
