"""Protobuf schemas: text or descriptor to what reads messages, or writes them, without generated code."""

import base64
import binascii
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.kafka.apicurio import message_name
from worker.types import JsonValue

COMPILE_SECONDS = 30.0
_ROOT = "registered_value.proto"
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*\.proto")
_MOST_INDEXES = 64
_VARINT_BITS = 35
_FIRST_MESSAGE = b"\0"


def protobuf_reader(text: str, references: Mapping[str, str]) -> Callable[[bytes], JsonValue]:
    """What decodes message indexes, or a name, and message into a plain object, with the field names of the schema.

    Blocks while the schema is compiled.

    Raises:
        ValueError: it cannot be compiled.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory  # noqa: PLC0415  an extra

    files = _descriptor_set(text, references, descriptor_pb2)
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in files:
            pool.Add(file)
        root = pool.FindFileByName(files[-1].name)
    except (TypeError, KeyError) as error:
        raise ValueError(type(error).__name__) from None
    top = [root.message_types_by_name[message.name] for message in files[-1].message_type]
    by_name = {descriptor.name.encode(): descriptor for descriptor in top}

    def named(body: bytes) -> tuple[Any, int] | None:
        name, start = message_name(body) or (b"", 0)
        return (by_name[name], start) if name in by_name else None

    def read(body: bytes) -> JsonValue:
        descriptor, start = named(body) or _counted(body, top)
        message = message_factory.GetMessageClass(descriptor)()
        message.ParseFromString(body[start:])
        found: JsonValue = json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=pool)
        return found

    return read


def protobuf_writer(text: str) -> Callable[[Mapping[str, Any]], bytes]:
    """What encodes a value as the first message of the `.proto` file `text`, with its message indexes in front.

    Blocks while the file is compiled.

    Raises:
        ValueError: it cannot be compiled.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415  an extra

    pool = descriptor_pool.DescriptorPool()
    *imported, own = _compiled(text, {}, descriptor_pb2)
    for file in (*imported, own):
        pool.Add(file)
    first = pool.FindFileByName(own.name).message_types_by_name[own.message_type[0].name]
    make = message_factory.GetMessageClass(first)
    return lambda value: _FIRST_MESSAGE + make(**value).SerializeToString()


def _descriptor_set(text: str, references: Mapping[str, str], pb2: Any) -> list[Any]:  # noqa: ANN401  its own types
    """Every file that the schema needs, each after those that it needs itself; the schema's own is the last."""
    own = _as_descriptor(text, pb2)
    if own is None:
        return _compiled(text, references, pb2)
    # Serializers of Python register descriptors in place of text, what they import as well.
    files = {name: _as_descriptor(each, pb2) for name, each in references.items()}
    for name, file in files.items():
        if file is None:
            raise ValueError(f"reference {len(name)}")
        file.name = name
    known = _well_known({name for file in (*files.values(), own) for name in file.dependency} - files.keys(), pb2)
    own.name = own.name or _ROOT
    return [*known, *files.values(), own]


def _as_descriptor(text: str, pb2: Any) -> Any:  # noqa: ANN401
    """The descriptor that is written in `text` in base 64; None where it is a .proto file."""
    try:
        raw = base64.b64decode(text.strip(), validate=True)
        file = pb2.FileDescriptorProto.FromString(raw)
    except (binascii.Error, ValueError, UnicodeEncodeError):
        return None
    except Exception as error:  # protobuf's own error has no base class in common
        if type(error).__name__ == "DecodeError":
            return None
        raise
    return file


def _well_known(names: set[str], pb2: Any) -> list[Any]:  # noqa: ANN401
    if not names:
        return []
    imports = "".join(f'import "{name}";\n' for name in sorted(names) if _SAFE_NAME.fullmatch(name))
    return _compiled(f'syntax = "proto3";\n{imports}', {}, pb2)[:-1]


def _compiled(text: str, references: Mapping[str, str], pb2: Any) -> list[Any]:  # noqa: ANN401
    with tempfile.TemporaryDirectory(prefix="schemas-") as folder:
        for name, each in {**references, _ROOT: text}.items():
            if not _SAFE_NAME.fullmatch(name) or ".." in name:
                raise ValueError("the name of an import")
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(each, encoding="utf-8")
        target = Path(folder, "descriptors")
        # In a process of its own: the compiler writes what it dislikes to our standard error, quoting it.
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", "--include_imports"]
        command += [f"--descriptor_set_out={target}", _ROOT]
        try:
            done = subprocess.run(command, capture_output=True, timeout=COMPILE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            raise ValueError("protoc does not end") from None
        if done.returncode != 0 or not target.exists():
            raise ValueError("protoc refuses it")
        return list(pb2.FileDescriptorSet.FromString(target.read_bytes()).file)


def _counted(body: bytes, top: Sequence[Any]) -> tuple[Any, int]:
    """The descriptor that the message indexes in front of `body` lead to, and where the message begins."""
    indexes, start = _message_indexes(body)
    descriptor = top[indexes[0]]
    for index in indexes[1:]:
        descriptor = descriptor.nested_types[index]
    return descriptor, start


def _message_indexes(body: bytes) -> tuple[list[int], int]:
    """Which message of the schema follows, from the outermost in, and where it begins."""
    count, at = _varint(body, 0)
    if count == 0:
        return [0], at
    if not 0 < count <= _MOST_INDEXES:
        raise ValueError("message indexes")
    indexes = []
    for _ in range(count):
        index, at = _varint(body, at)
        if index < 0:
            raise ValueError("message index")
        indexes.append(index)
    return indexes, at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift <= _VARINT_BITS:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return (value >> 1) ^ -(value & 1), at
    raise ValueError("varint")
