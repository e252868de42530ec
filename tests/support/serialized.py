"""Records as the reference serializers of confluent-kafka write them, and the class that reads our predictions."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

AVRO_FIELDS = [
    {"name": "number", "type": "long"},
    {"name": "content", "type": {"type": "record", "name": "Content", "fields": [{"name": "body", "type": "string"}]}},
]
AVRO_NOTE = {"name": "note", "type": ["null", "string"], "default": None}
PROTOBUF_TEXT = """syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
message Ignored {}
message Ticket {
  message Content { string body = 1; }
  int64 number = 1;
  Content content = 2;
  google.protobuf.Timestamp at = 3;
}
"""


class Serializers:
    """What writes the ticket `{"number": 1, "content": {"body": "…"}}` in each format.

    One with a `note` is written by a later version of the schema, which has that field as well.
    """

    _opened: ClassVar[list[Any]] = []

    def __init__(self, url: str) -> None:
        self.client: Any = SchemaRegistryClient({"url": url})
        self._opened.append(self.client)

    @classmethod
    def close_all(cls) -> None:
        """Close the clients of all that were made."""
        while cls._opened:
            cls._opened.pop().close()

    def avro(self, topic: str, ticket: Mapping[str, Any]) -> bytes:
        fields = [*AVRO_FIELDS, AVRO_NOTE] if "note" in ticket else AVRO_FIELDS
        schema = {"type": "record", "name": "Ticket", "namespace": "shop", "fields": fields}
        return bytes(AvroSerializer(self.client, json.dumps(schema))(dict(ticket), _context(topic)))

    def json_schema(self, topic: str, ticket: Mapping[str, Any]) -> bytes:
        schema: dict[str, Any] = {"title": "Ticket", "type": "object", "properties": {"number": {"type": "integer"}}}
        if "note" in ticket:
            schema["properties"]["note"] = {"type": "string"}
        return bytes(JSONSerializer(json.dumps(schema), self.client)(dict(ticket), _context(topic)))

    def protobuf(self, topic: str, ticket: Mapping[str, Any]) -> bytes:
        message = _ticket_class(has_note="note" in ticket)(**ticket)
        serialize = ProtobufSerializer(type(message), self.client, {"use.deprecated.format": False})
        return bytes(serialize(message, _context(topic)))

    def protobuf_by_text(self, topic: str, ticket: Mapping[str, Any]) -> bytes:
        """The same under a schema that was registered as text, as serializers of Java do it; second in its file."""
        number = self.client.register_schema(f"{topic}-value", Schema(PROTOBUF_TEXT, "PROTOBUF"))
        message = _ticket_class()(**ticket)
        return bytes(b"\0" + number.to_bytes(4, "big") + bytes([2, 2]) + message.SerializeToString())

    def write(self, kind: str, topic: str, ticket: Mapping[str, Any]) -> bytes:
        """The ticket as the method `kind` writes it."""
        return bytes(getattr(self, kind)(topic, ticket))


def prediction_class(folder: Path) -> Any:  # noqa: ANN401  made of the schema
    """The class that `protoc` makes of the published schema of predictions, by way of `folder`."""
    target = folder / "prediction.descriptors"
    source = Path(__file__).parents[2] / "schemas" / "messages" / "prediction.proto"
    options = [f"-I{source.parent}", f"--descriptor_set_out={target}", source.name]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options], check=True)
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nli_stream_worker.Prediction"))


def ticket(number: int, body: str = "the app crashes") -> dict[str, Any]:
    return {"number": number, "content": {"body": body}}


def context(topic: str) -> Any:  # noqa: ANN401  the client has no types
    return _context(topic)


def _context(topic: str) -> Any:  # noqa: ANN401
    return SerializationContext(topic, MessageField.VALUE)


def _ticket_class(*, has_note: bool = False) -> Any:  # noqa: ANN401
    file = descriptor_pb2.FileDescriptorProto(name="ticket.proto", package="shop", syntax="proto3")
    message = file.message_type.add(name="Ticket")
    content = message.nested_type.add(name="Content")
    content.field.add(name="body", number=1, type=9, label=1)
    message.field.add(name="number", number=1, type=3, label=1)
    message.field.add(name="content", number=2, type=11, label=1, type_name=".shop.Ticket.Content")
    if has_note:
        message.field.add(name="note", number=4, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Ticket"))
