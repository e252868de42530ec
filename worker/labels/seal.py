"""What vouches for the versions of a label schema in the topic: the digest of each, and how far they rose. Pure.

Compaction keeps only the last document under a version, and only the last pointer. A seal stands under a key of its
own, so that whoever reads the topic later still knows what a document was when it was applied.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.documents import mapping_in
from worker.labels.schema import canonical_json
from worker.types import JsonValue

SEAL = "seal"
"""A seal stands under `name@seal`."""
MOST_SEALED = 1000
"""Versions that a seal vouches for, the highest there are: 83 bytes each, far below what a record may hold."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What was applied so far."""

    version: int = -1
    """The highest version that a pointer was moved to; below all versions where none was."""
    digests: Mapping[int, str] = field(default_factory=dict)
    """By version."""


def seal_bytes(seal: Seal) -> bytes:
    """The value under `name@seal`, of the highest versions where there are too many."""
    kept = sorted(seal.digests)[-MOST_SEALED:]
    digests: dict[str, JsonValue] = {str(version): seal.digests[version] for version in kept}
    return canonical_json({"version": seal.version, "digests": digests})


def read_seal(value: bytes) -> Seal | None:
    """The seal that `value` is; None where it is none."""
    document = mapping_in(value)
    if document is None:
        return None
    version, digests = document.get("version"), document.get("digests")
    if isinstance(version, bool) or not isinstance(version, int) or not isinstance(digests, dict):
        return None
    read = {int(key): digest for key, digest in digests.items() if _is_number(key) and isinstance(digest, str)}
    return Seal(version, read) if len(read) == len(digests) else None


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) <= 18  # noqa: PLR2004  the most that a reference may have
