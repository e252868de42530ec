"""Tokenizers of the five families that NLI models come with, small enough to build in a test."""

import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.support.charsmap import charsmap

_CHARACTERS = [chr(code) for code in range(33, 127)] + list("äéß漢字мשﷺ😀🏽")
_WORDS = ["this", "example", "is", "the", "a", "bill", "refund", "app", "crash", "delivery", "late", "good", "not"]
_COMPOSED = ["ﬁ", "½", "\uff21", "ﷺ", "é", "한", "①", "…", "㌀"]
_BLANKS = ["\t", "\n", "\r", "\u00a0", "\u2028", "\u3000"]
_INVISIBLE = ["\u200b", "\ufeff", "\x00", "\x7f", "\u00ad"]
_NMT_NFKC = charsmap(
    {unicodedata.normalize("NFD", character): unicodedata.normalize("NFKC", character) for character in _COMPOSED}
    | {character: unicodedata.normalize("NFKC", character) for character in _COMPOSED}
    | dict.fromkeys(_BLANKS, " ")
    | dict.fromkeys(_INVISIBLE, "")
)
"""Some of the table that SentencePiece's models carry: its own NFKC, blanks made spaces, the invisible removed."""


def bert_style() -> Tokenizer:
    """WordPiece, `[CLS] a [SEP] b [SEP]`, type ids 0 and 1."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*specials, *_CHARACTERS, *(f"##{c}" for c in _CHARACTERS), *_WORDS[2:], "##s", "##es", "##ing"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=specials[1], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(special, normalized=False) for special in specials])
    tokenizer.post_processor = _template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", tokenizer)
    return tokenizer


def roberta_style() -> Tokenizer:
    """Byte-level BPE, `<s> a </s></s> b </s>`, type ids all 0."""
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    vocabulary = tokenizer.get_vocab()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def modernbert_style() -> Tokenizer:
    """Byte-level BPE over composed characters, `[CLS] a [SEP] b [SEP]`, type ids 0 and 1; runs of spaces are tokens."""
    tokenizer = _byte_level(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(" " * spaces, normalized=True) for spaces in range(24, 1, -1)])
    tokenizer.post_processor = _template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", tokenizer)
    return tokenizer


def xlm_roberta_style() -> Tokenizer:
    """Unigram over words that begin with `▁`, cut at white space, `<s> a </s></s> b </s>`, type ids all 0."""
    tokenizer = _unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(_NMT_NFKC), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.post_processor = _template("<s> $A </s>", "<s> $A </s> </s> $B </s>", tokenizer)
    return tokenizer


def deberta_style() -> Tokenizer:
    """Unigram over words that begin with `▁`, `[CLS] a [SEP] b [SEP]`, type ids 0 and 1."""
    tokenizer = _unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Strip(),
            normalizers.Precompiled(_NMT_NFKC),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = _template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", tokenizer)
    return tokenizer


FAMILIES = {
    "bert": bert_style,
    "roberta": roberta_style,
    "xlm-roberta": xlm_roberta_style,
    "deberta": deberta_style,
    "modernbert": modernbert_style,
}
"""All of them, by name."""


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    """Write `tokenizer.json` into `folder`; gives the file."""
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def _byte_level(specials: list[str]) -> Tokenizer:
    merges = [("h", "e"), ("t", "he"), ("Ġ", "the"), ("i", "s"), ("Ġ", "is"), ("Ġ", "a"), ("r", "e"), ("Ã", "©")]
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_special(special) for special in specials])
    return tokenizer


def _unigram(specials: list[str]) -> Tokenizer:
    scored = [(f"▁{word}", -3.0 - len(word) / 10) for word in _WORDS]
    scored += [("▁", -4.0), ("s", -4.5), *((c, -8.0) for c in _CHARACTERS if c != "s")]
    unknown = next(number for number, special in enumerate(specials) if "unk" in special.lower())
    tokenizer = Tokenizer(models.Unigram([*((special, 0.0) for special in specials), *scored], unknown))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([_special(special) for special in specials])
    return tokenizer


def _special(token: str) -> AddedToken:
    # Every family's mask takes the white space before it along.
    return AddedToken(token, normalized=False, lstrip="mask" in token.lower())


def _template(single: str, pair: str, tokenizer: Tokenizer) -> processors.TemplateProcessing:
    names = {part.partition(":")[0] for part in pair.split() if not part.startswith("$")}
    specials = [(token, tokenizer.token_to_id(token)) for token in sorted(names)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=specials)
