"""Tiny random models of the families people name, saved as they would be downloaded."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from worker.engines.artifact import TOKENIZER_FILE

LABELS = ("entailment", "neutral", "contradiction")
_SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    # Large enough that logits differ between pairs: with the usual 0.02 they would agree whatever the graph does.
    "initializer_range": 0.3,
}


def write_tiny_torch_model(folder: Path, family: str, labels: tuple[str, ...] = LABELS) -> Path:
    """A model of `family` with random weights and a byte-level tokenizer in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = _config(family)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    for name, weights in model.named_parameters():
        if "classifier" in name:
            torch.nn.init.normal_(weights, std=0.5)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer(pad_id=config.pad_token_id).save(str(folder / TOKENIZER_FILE))
    return folder


def tokenizer(pad_id: int) -> tokenizers.Tokenizer:
    """One token a byte, joined `[CLS] premise [SEP] hypothesis [SEP]`."""
    special = [token for token in ("[CLS]", "[SEP]", "[UNK]") if token]
    names = [*special, *sorted(ByteLevel.alphabet())]
    free = [index for index in range(len(names) + 1) if index != pad_id]
    vocabulary = {"[PAD]": pad_id, **dict(zip(names, free, strict=True))}
    made = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  # a token of text
    splitter = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [ByteLevel(add_prefix_space=False, use_regex=False), splitter]
    )
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return made


def _config(family: str) -> Any:  # noqa: ANN401  # transformers is optional, so untyped to mypy
    if family == "bert":
        return transformers.BertConfig(**_SHAPE, max_position_embeddings=160)
    if family in {"roberta", "xlm-roberta"}:
        kind = transformers.RobertaConfig if family == "roberta" else transformers.XLMRobertaConfig
        return kind(**_SHAPE, max_position_embeddings=162, type_vocab_size=1, pad_token_id=1)
    if family == "deberta-v2":
        return transformers.DebertaV2Config(
            **_SHAPE,
            max_position_embeddings=160,
            relative_attention=True,
            position_buckets=16,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            type_vocab_size=0,
        )
    return transformers.ModernBertConfig(
        **_SHAPE,
        max_position_embeddings=160,
        local_attention=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )
