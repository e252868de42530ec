"""What SentencePiece's tokenizers normalise by: a table of characters, in the form that `Precompiled` reads."""

from collections.abc import Mapping

_ROW = 256
"""Each state of the trie has a row of its own: wasteful, and simple."""
_HAS_VALUE = 1 << 8
_IS_VALUE = 1 << 31


def charsmap(table: Mapping[str, str]) -> bytes:
    """The table as a double array (Darts-clone's) and the texts that it points at, each ended by a zero.

    A unit holds the byte that leads to it and, from bit 10 on, what its place is to be XORed with for its row; the
    first place of a row holds the value of what ends there.
    """
    states: dict[bytes, int] = {b"": 0}
    for text in table:
        key = text.encode()
        for end in range(1, len(key) + 1):
            states.setdefault(key[:end], len(states))
    values: dict[bytes, int] = {}
    texts = b""
    for before, after in table.items():
        values[before.encode()] = len(texts)
        texts += after.encode() + b"\0"
    units = [0] * (_ROW * (len(states) + 1))
    for key, state in states.items():
        row = _ROW * (state + 1)
        place = _ROW * (states[key[:-1]] + 1) ^ key[-1] if key else 0
        units[place] = (place ^ row) << 10 | (key[-1] if key else 0) | (_HAS_VALUE if key in values else 0)
        if key in values:
            units[row] = _IS_VALUE | values[key]
    trie = b"".join(unit.to_bytes(4, "little") for unit in units)
    return len(trie).to_bytes(4, "little") + trie + texts
