"""A T5 with random weights and a tokenizer of its kind, small enough to build in a test. Needs torch."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

_WORDS = [
    "this",
    "text",
    "is",
    "about",
    "billing",
    "bug",
    "OPTIONS",
    ":",
    "-",
    "which",
    "sentence",
    "true",
    "of",
    "the",
]


def t5_tokenizer() -> Tokenizer:
    """Unigram over words that begin with `▁`; `</s>` ends a text."""
    specials = ["<pad>", "</s>", "<unk>"]
    characters = [chr(code) for code in range(33, 127)]
    scored = [*((f"▁{word}", -3.0) for word in _WORDS), ("▁", -4.0), *((each, -8.0) for each in characters)]
    vocabulary = [*((special, 0.0) for special in specials), *scored]
    tokenizer = Tokenizer(models.Unigram(vocabulary, specials.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.add_special_tokens([AddedToken(special, normalized=False) for special in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", specials.index("</s>"))]
    )
    return tokenizer


def write_tiny_t5(folder: Path) -> Path:
    """A model folder; gives the folder."""
    import torch  # noqa: PLC0415  # only here where the group `reference` is
    import transformers  # noqa: PLC0415  # as above

    folder.mkdir(parents=True)
    tokenizer = t5_tokenizer()
    config = transformers.T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        initializer_factor=3.0,
    )
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).eval().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 96}))
    return folder
