"""The transformers pipeline as all contestants around it use it."""

from typing import Any

import torch
from protocol import Settings
from transformers import pipeline


class ZeroShot:
    """Zero-shot classification with one set of labels, in float32 and bfloat16."""

    def __init__(self, given: Settings) -> None:
        torch.set_num_threads(given["threads"])
        self._given = given
        self._pipelines: dict[str, Any] = {}

    def labels(self, texts: list[str], dtype: str, batch: int) -> list[str]:
        """The best label of each text; `batch` is how many pairs the model takes at once."""
        classify = self._pipelines.get(dtype) or self._load(dtype)
        template, candidates = self._given["template"], self._given["labels"]
        with torch.inference_mode():
            found = classify(texts, candidates, hypothesis_template=template, batch_size=batch)
        return [each["labels"][0] for each in found]

    def _load(self, dtype: str) -> Any:  # noqa: ANN401  transformers does not say what it gives
        made = pipeline(
            "zero-shot-classification",
            model=self._given["model"],
            device="cpu",
            dtype=getattr(torch, dtype),
        )
        # The worker cuts at the model's longest pair too; the pipeline leaves the limit to the tokenizer.
        made.tokenizer.model_max_length = self._given["max_pair_tokens"]
        self._pipelines[dtype] = made
        return made
