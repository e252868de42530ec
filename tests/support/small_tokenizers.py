"""Tokenizers of the three kinds that NLI models come with, small enough to build in a test."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_CHARACTERS = [chr(code) for code in range(33, 127)] + list("äéß漢字мשﷺ😀🏽")
_WORDS = ["this", "example", "is", "the", "a", "bill", "refund", "app", "crash", "delivery", "late", "good", "not"]


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
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    merges = [("h", "e"), ("t", "he"), ("Ġ", "the"), ("i", "s"), ("Ġ", "is"), ("Ġ", "a"), ("r", "e"), ("Ã", "©")]
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(special, normalized=False) for special in specials])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def deberta_style() -> Tokenizer:
    """Unigram over words that begin with `▁`, `[CLS] a [SEP] b [SEP]`, type ids 0 and 1."""
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    scored = [(f"▁{word}", -3.0 - len(word) / 10) for word in _WORDS]
    scored += [("▁", -4.0), ("s", -4.5), *((c, -8.0) for c in _CHARACTERS if c != "s")]
    tokenizer = Tokenizer(models.Unigram([*((special, 0.0) for special in specials), *scored], specials.index("[UNK]")))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(special, normalized=False) for special in specials])
    tokenizer.post_processor = _template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", tokenizer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    """Write `tokenizer.json` into `folder`; gives the file."""
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    return file


def _template(single: str, pair: str, tokenizer: Tokenizer) -> processors.TemplateProcessing:
    specials = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=specials)
