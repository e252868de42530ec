"""Texts to token ids, piece by piece where a tokenizer works so: most pieces were seen before.

BERT's tokenizers clean and lower-case a text, cut it at white space and punctuation, and look each word up by itself.
So what stands between white space, a word with the punctuation around it, has the same ids in every text: for plain
ASCII a split and a look into a dictionary do. Any other text, and any other tokenizer, goes the tokenizer's own way.
"""

import json
import re
from collections.abc import Sequence
from itertools import chain

from tokenizers import Tokenizer

PIECES_KEPT = 65_536
LONGEST_KEPT = 40
"""Characters of a piece that is kept."""
MOST_IDS_KEPT = 8
"""Ids of a piece that is kept: 65,536 pieces take some 16 MB, 32 at the very most."""

_WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
"""What the tokenizer removes or asks Unicode about; tab, line feed and carriage return are white space to it."""


class TextEncoder:
    """The token ids of texts, without special tokens, exactly as the tokenizer gives them. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """`tokenizer` neither cuts nor pads."""
        self._tokenizer = tokenizer
        self._model = tokenizer.model
        """What is left of the tokenizer's work where a piece is one word already."""
        self._pieces: dict[str, list[int]] = {}
        self._is_lowercase = False
        self._odd: re.Pattern[str] | None = None
        """Finds what only the tokenizer itself can read; None where that is every text."""
        document = json.loads(tokenizer.to_str())
        normalizer = document["normalizer"] or {}
        if (
            normalizer.get("type") == "BertNormalizer"
            and normalizer.get("clean_text") is True
            and document["pre_tokenizer"] == {"type": "BertPreTokenizer"}
            and document["model"]["type"] == "WordPiece"
        ):
            self._is_lowercase = normalizer["lowercase"]
            # A token that was added is found before anything else is done, wherever it stands.
            starts = {case for added in document["added_tokens"] for case in _cases(added["content"][:1])}
            self._odd = re.compile(f"[{_CONTROLS}{''.join(map(re.escape, sorted(starts)))}]")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        odd = self._odd
        if odd is None:
            return self._encoded_whole(texts)
        encoded = [self._by_piece(text) if text.isascii() and not odd.search(text) else None for text in texts]
        others = iter(self._encoded_whole([text for text, ids in zip(texts, encoded, strict=True) if ids is None]))
        return [next(others) if ids is None else ids for ids in encoded]

    def _encoded_whole(self, texts: Sequence[str]) -> list[list[int]]:
        # One call for all: it is Rust on every core, and no other thread of ours waits for it.
        encodings = self._tokenizer.encode_batch_fast([*texts], add_special_tokens=False) if texts else []
        return [encoding.ids for encoding in encodings]

    def _by_piece(self, text: str) -> list[int]:
        # White space is to the tokenizer what it is to `split`: where it is not, the text is odd.
        pieces = (text.lower() if self._is_lowercase else text).split()
        try:
            return list(chain.from_iterable(map(self._pieces.__getitem__, pieces)))
        except KeyError:  # many texts have a piece that no text had before
            return list(chain.from_iterable(map(self._of_piece, pieces)))

    def _of_piece(self, piece: str) -> list[int]:
        ids = self._pieces.get(piece)
        if ids is None:
            words = _WORD.findall(piece)
            if len(words) == 1:
                ids = [token.id for token in self._model.tokenize(piece)]
            else:
                ids = list(chain.from_iterable(map(self._of_piece, words)))
            if len(piece) <= LONGEST_KEPT and len(ids) <= MOST_IDS_KEPT:
                if len(self._pieces) >= PIECES_KEPT:
                    self._pieces.clear()
                self._pieces[piece] = ids
        return ids


def _cases(character: str) -> set[str]:
    return {character, character.lower(), character.upper()}
