"""What serializers of Apicurio Registry write otherwise than Confluent's, and how it is read all the same.

Told to write as Confluent's do they put the same id in front of a value; a Protobuf message they name where Confluent's
count. Told to use headers they leave the value bare. Ids that only Apicurio's own interface knows cannot be looked up:
what is said of those names the setting of the producer that mends it.
"""

from worker.errors import ErrorCode, MessageError, Stage
from worker.types import Record

_CONTENT_ID = "apicurio.value.contentId"
_OTHER_IDS = frozenset({"apicurio.value.globalId", "apicurio.value.artifactId"})
_MESSAGE_NAME = "apicurio.protobuf.type"
_ID_BYTES = 8

_NAME_TAG = 0x0A
"""Of field 1, a string, in the Protobuf message that holds the name of a message."""
_NAME_AT = 3
_MOST_BYTES = 0x7F


def schema_in_headers(record: Record) -> tuple[int, bytes] | None:
    """Which schema wrote the value of `record` by its headers, and what it wrote; None where they say nothing.

    Raises:
        MessageError: `payload_invalid`: they name a schema in a way that no other registry knows.
    """
    headers = dict(record.headers)
    found = headers.get(_CONTENT_ID)
    if found is not None and len(found) == _ID_BYTES:
        return int.from_bytes(found, "big"), _named(headers.get(_MESSAGE_NAME)) + (record.value or b"")
    if _OTHER_IDS.isdisjoint(headers):
        return None
    raise _refused("headers: expected apicurio.value.contentId: set apicurio.registry.use-id=contentId at the producer")


def check_id(schema_id: int) -> None:
    """Refuse an id that is the first half of one of eight bytes.

    Raises:
        MessageError: `payload_invalid`.
    """
    if schema_id == 0:  # registries count from 1
        raise _refused(
            "value: expected a schema id of four bytes, it has eight: set apicurio.registry.as-confluent=true and "
            "apicurio.registry.use-id=contentId at the producer"
        )


def message_name(body: bytes) -> tuple[bytes, int] | None:
    """The name of the Protobuf message that follows in `body`, and where it begins; None where no name is in front.

    Message indexes of Confluent's could look the same; only if the name is one of the schema's is it a name.
    """
    if len(body) < _NAME_AT or body[0] > _MOST_BYTES or body[1] != _NAME_TAG or body[0] != body[2] + 2:
        return None
    end = body[0] + 1
    return body[_NAME_AT:end], end


def _named(name: bytes | None) -> bytes:
    """The name of a message as it stands in front of one that is not named in headers."""
    if not name or len(name) > _MOST_BYTES - 2:
        return b""
    return bytes((len(name) + 2, _NAME_TAG, len(name))) + name


def _refused(reason: str) -> MessageError:
    return MessageError(ErrorCode.PAYLOAD_INVALID, Stage.DECODE, reason)
