"""NLI models with random weights, small enough to build in a test. Needs torch and transformers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tests.support import small_tokenizers

MAX_PAIR_TOKENS = 48
"""Less than the models' position tables hold: the tokenizer's configuration is what limits a pair."""
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_ROUGHNESS = 0.4
"""Standard deviation of the weights: at the usual 0.02 all logits are nearly alike and anything would agree."""


@dataclass(frozen=True)
class Architecture:
    """What stands between a tokenizer and a head."""

    config: str
    model: str
    tokenizer: Tokenizer
    options: dict[str, Any]
    specials: dict[str, str]


def bert() -> Architecture:
    """Tells premise from hypothesis by type ids."""
    specials = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    options = {"max_position_embeddings": 64, "type_vocab_size": 2}
    return Architecture("BertConfig", "BertForSequenceClassification", small_tokenizers.bert_style(), options, specials)


def roberta() -> Architecture:
    """Has no type ids, and counts positions from its padding token."""
    specials = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "bos": "<s>", "eos": "</s>"}
    options = {"max_position_embeddings": 64, "type_vocab_size": 1}
    return Architecture(
        "RobertaConfig", "RobertaForSequenceClassification", small_tokenizers.roberta_style(), options, specials
    )


def build(folder: Path, architecture: Architecture, classes: Sequence[str], seed: int = 0) -> Path:
    """Write a model folder whose head has `classes` in this order; gives the folder."""
    import torch  # noqa: PLC0415  # only here where the group `reference` is
    import transformers  # noqa: PLC0415  # as above

    folder.mkdir(parents=True)
    ids = {
        f"{name}_token_id": architecture.tokenizer.token_to_id(token) for name, token in architecture.specials.items()
    }
    config = getattr(transformers, architecture.config)(
        vocab_size=architecture.tokenizer.get_vocab_size(),
        initializer_range=_ROUGHNESS,
        id2label=dict(enumerate(classes)),
        label2id={label: index for index, label in enumerate(classes)},
        pad_token_id=ids["pad_token_id"],
        **_SIZES,
        **architecture.options,
    )
    torch.manual_seed(seed)
    getattr(transformers, architecture.model)(config).eval().save_pretrained(folder)
    small_tokenizers.save(architecture.tokenizer, folder)
    inputs = ["input_ids", *(["token_type_ids"] if config.type_vocab_size > 1 else []), "attention_mask"]
    tokens = {f"{name}_token": token for name, token in architecture.specials.items()}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_PAIR_TOKENS,
        "model_input_names": inputs,
        **tokens,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return folder
