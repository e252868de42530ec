"""A GLiClass uni-encoder with random weights, saved by its own library. Needs torch and gliclass."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tests.support import small_tokenizers

TOKENIZERS = {
    "bert": small_tokenizers.bert_style,
    "deberta-v2": small_tokenizers.deberta_style,
    "modernbert": small_tokenizers.roberta_style,
}
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.3,
    "max_position_embeddings": 1024,
}
_DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
_MODERN: dict[str, Any] = {"global_attn_every_n_layers": 2, "local_attention": 16}


def marked(tokenizer: Tokenizer) -> Tokenizer:
    """`tokenizer` with the tokens that mark labels and text."""
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<<LABEL>>", "<<SEP>>")])
    return tokenizer


def write_tiny_gliclass(folder: Path, family: str = "bert", **config: Any) -> Path:  # noqa: ANN401  # any key of theirs
    """A model folder whose encoder is of `family`; `config` goes to GLiClass' own configuration. Gives the folder."""
    import gliclass  # noqa: PLC0415  # only here where the group `reference` is
    import torch  # noqa: PLC0415  # as above
    import transformers  # noqa: PLC0415  # as above

    folder.mkdir(parents=True)
    tokenizer = marked(TOKENIZERS[family]())
    label, text = (tokenizer.token_to_id(token) for token in ("<<LABEL>>", "<<SEP>>"))
    pad_token = "<pad>" if family == "modernbert" else "[PAD]"  # a token of text
    pad = tokenizer.token_to_id(pad_token)
    size = tokenizer.get_vocab_size()
    more = {"deberta-v2": _DEBERTA, "modernbert": _MODERN}.get(family, {})
    encoder = transformers.AutoConfig.for_model(family, vocab_size=size, pad_token_id=pad, **_SHAPE, **more)
    torch.manual_seed(0)
    shape = gliclass.GLiClassModelConfig(
        encoder_config=encoder.to_dict(),
        encoder_model="none",
        class_token_index=label,
        text_token_index=text,
        **{"vocab_size": size, "prompt_first": True, "initializer_range": 0.3, **config},
    )
    gliclass.GLiClassModel(shape).eval().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "pad_token": pad_token}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
