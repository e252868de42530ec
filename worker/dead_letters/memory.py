"""Which dead letters of a partition were replayed, small enough to be kept with a committed offset. Pure."""

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from worker.errors import ConfigError

MEMORY_BYTES = 4096
"""What a broker keeps beside a committed offset: Kafka's default of `offset.metadata.max.bytes`."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A position, and what was replayed beyond it.

    Kept as the committed offset of a group, with the rest in the offset's metadata: so it changes in the transaction
    that replays, and a filter can leave dead letters behind without their being forgotten.
    """

    position: int = 0
    """Everything below it was replayed, or is gone."""
    beyond: bytes = b""
    """Bit n, from the lowest of the first byte on: the record at `position` + n was replayed."""

    def holds(self, offset: int) -> bool:
        """Whether the record at `offset` was replayed."""
        byte, bit = divmod(offset - self.position, 8)
        return byte < 0 or (byte < len(self.beyond) and bool(self.beyond[byte] >> bit & 1))

    def with_replayed(self, offsets: Iterable[int]) -> Self:
        """This, and the records at `offsets`."""
        steps = [offset - self.position for offset in offsets if offset >= self.position]
        if not steps:
            return self
        bits = bytearray(self.beyond.ljust(max(steps) // 8 + 1, b"\0"))
        for step in steps:
            bits[step // 8] |= 1 << step % 8
        return type(self)(self.position, bytes(bits))

    def advanced(self, position: int) -> Self:
        """The same from `position` on, below which nothing is left to replay."""
        steps = position - self.position
        if steps <= 0:
            return self
        bits = int.from_bytes(self.beyond, "little") >> steps
        return type(self)(position, bits.to_bytes((bits.bit_length() + 7) // 8, "little"))

    def metadata(self) -> str:
        """What is to be kept beside the position; `MEMORY_BYTES` may be too few for it."""
        bits = self.beyond.rstrip(b"\0")
        return base64.b64encode(zlib.compress(bits, 9)).decode("ascii") if bits else ""

    @classmethod
    def read(cls, position: int, metadata: str) -> Self:
        """What was kept.

        Raises:
            ConfigError: somebody else commits under the same group.
        """
        if not metadata:
            return cls(position)
        try:
            return cls(position, zlib.decompress(base64.b64decode(metadata, validate=True)))
        except (ValueError, zlib.error):
            raise ConfigError("something else commits under the group of replays: reset the offsets of it") from None
