"""The one-pass engine: an encoder reads a text and all labels in one row, and a small head scores each label.

The architecture is that of GLiClass' uni-encoders (Stepanov et al. 2025, arXiv 2508.07662; written after version 0.1.21
of their library). A token of type 1 marks a label, one of type 2 the text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.engines.artifact import ModelFolder
from worker.engines.generic_torch import TorchOptions, open_torch
from worker.engines.gliclass_folder import HEAD, GliclassConfig
from worker.engines.layout import Int64Array, checked_logits, pad
from worker.engines.memory import with_memory_errors_told
from worker.errors import EngineError, EngineOutOfMemoryError
from worker.types import Batch, EngineInfo, ModelStamp, PairRef, PairScores

_CPU_TOKEN_BUDGET: Final = 2048
_GPU_TOKEN_BUDGET: Final = 16384
_LABEL, _TEXT = 1, 2
_ENCODER: Final = "model.encoder_model."
_EPSILON: Final = 1e-8


class _Places(NamedTuple):
    """Where things stand in a batch without padding, each int64."""

    row_of: Int64Array
    """[tokens]: which row."""
    labels: Int64Array
    """[labels]: places of the tokens that mark them."""
    owner: Int64Array
    """[tokens]: the label whose span it is in; -1: none's."""
    first: Int64Array
    """[rows]: where what is pooled as text begins."""
    is_text: npt.NDArray[np.bool_]
    """[tokens]: from the text's own token on; everything in a row without one."""


class GliclassEngine:
    """A uni-encoder in safetensors: transformers' encoder under our own head; no code of the model's own is run."""

    def __init__(self, folder: ModelFolder, config: GliclassConfig, options: TorchOptions) -> None:
        """Load the model; takes seconds.

        Raises:
            ConfigError: a precision this engine has not.
            EngineError: torch is not installed, or the folder's model cannot be loaded.
        """
        self._place = place = open_torch("gliclass", options)
        self._config = config
        self._pad_id = folder.pad_token_id
        loaded = _load(folder, config, place.dtype)
        self._encoder: Any = loaded[0].to(self._place.device)
        self._weights: dict[str, Any] = {name: weight.to(self._place.device) for name, weight in loaded[1].items()}
        budget = _GPU_TOKEN_BUDGET if self._place.device == "cuda" else _CPU_TOKEN_BUDGET
        self._info = EngineInfo(
            stamp=ModelStamp(folder.name, folder.digest(folder.safetensors_files()), "gliclass", place.precision),
            head=HEAD,
            max_pair_tokens=folder.max_pair_tokens,
            token_budget=max(budget, folder.max_pair_tokens),
            details=place.details,
            reading=config.row,
        )

    @property
    def info(self) -> EngineInfo:
        """What was loaded; constant for the life of the engine."""
        return self._info

    def warm_up(self) -> None:
        """Run a short and a long row once."""
        for tokens in (8, self._info.max_pair_tokens):
            types = np.zeros(tokens, np.int32)
            types[1], types[3] = _LABEL, _TEXT
            self.score(Batch((PairRef(0, 0),), np.ones(tokens, np.int32), types, np.array([tokens], np.int32)))

    def score(self, batch: Batch) -> PairScores:
        """The logit of every label and 0, float32 [labels, 2], by row and within it in the row's order. Blocks.

        Raises:
            EngineOutOfMemoryError: there is no memory for this batch.
            EngineError: the engine is closed.
            ValueError: a row does not hold the labels that it asks about, or a logit is not finite.
        """
        if self._encoder is None:
            raise EngineError("the gliclass engine is closed")
        if not len(batch.lengths):
            return PairScores(np.empty((0, HEAD.classes), np.float32))
        places = _places(batch, text_ends_labels=self._config.takes_text_alone)
        try:
            logits = with_memory_errors_told(lambda: self._logits(batch, places))
        except EngineOutOfMemoryError:
            self._place.empty_cache()
            raise
        return PairScores(checked_logits(np.stack((logits, np.zeros_like(logits)), axis=1), batch.asked, HEAD))

    def close(self) -> None:
        """Give back memory. Not to be used after."""
        self._encoder, self._weights = None, {}
        self._place.empty_cache()

    def _logits(self, batch: Batch, places: _Places) -> npt.NDArray[np.float32]:
        torch, config = self._place.torch, self._config
        with torch.inference_mode():
            hidden = self._encoded(batch, places)
            of_row = self._tensor(places.row_of[places.labels])
            text = self._projected(self._text(hidden, places, batch.lengths), "text_projector")
            labels = self._projected(self._labels(hidden, places), "classes_projector")
            if config.normalizes:
                text, labels = (each / (each.norm(p=2, dim=-1, keepdim=True) + _EPSILON) for each in (text, labels))
            scores = self._scored(text[of_row], labels)
            if config.normalizes:
                scores = scores * self._weights["logit_scale"]
            return np.asarray(scores.float().cpu().numpy(), np.float32)

    def _encoded(self, batch: Batch, places: _Places) -> Any:  # noqa: ANN401  # torch is optional
        """Hidden states of the tokens, without padding: [tokens, size]."""
        rectangle = pad(batch, self._pad_id)
        ids, mask = self._tensor(rectangle.input_ids), self._tensor(rectangle.attention_mask)
        if not self._config.has_segments:
            states = self._encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        else:
            segments = np.zeros_like(rectangle.input_ids)
            segments[rectangle.attention_mask.astype(bool)] = places.is_text
            embeds = self._encoder.get_input_embeddings()(ids)
            embeds = embeds + self._weights["segment_embeddings.weight"][self._tensor(segments)]
            states = self._encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
        return states[mask.bool()]

    def _text(self, hidden: Any, places: _Places, lengths: npt.NDArray[np.int32]) -> Any:  # noqa: ANN401
        """What stands for each text: [rows, size]."""
        if self._config.pooling == "first":
            return hidden[self._tensor(places.first)]
        # GLiClass divides by the whole row also where it adds up the text alone, and by padding, which is left out.
        counted = np.nonzero(places.is_text)[0] if self._config.takes_text_alone else np.arange(len(hidden))
        sums = self._summed(hidden, counted, places.row_of[counted], len(lengths))
        return sums / self._tensor(lengths.astype(np.int64))[:, None]

    def _labels(self, hidden: Any, places: _Places) -> Any:  # noqa: ANN401  # torch is optional
        """What stands for each label: [labels, size]."""
        config = self._config
        if not config.averages_labels:
            return hidden[self._tensor(places.labels if config.has_label_token else places.labels + 1)]
        owner = places.owner.copy()
        if not config.has_label_token:
            owner[places.labels] = -1
        counted = np.nonzero(owner >= 0)[0]
        counts = np.maximum(np.bincount(owner[counted], minlength=len(places.labels)), 1)
        return self._summed(hidden, counted, owner[counted], len(counts)) / self._tensor(counts)[:, None]

    def _summed(self, hidden: Any, tokens: Int64Array, into: Int64Array, rows: int) -> Any:  # noqa: ANN401
        sums = hidden.new_zeros((rows, hidden.shape[1]))
        return sums.index_add_(0, self._tensor(into), hidden[self._tensor(tokens)])

    def _projected(self, features: Any, name: str) -> Any:  # noqa: ANN401  # torch is optional
        from transformers.activations import ACT2FN  # noqa: PLC0415  # heavy

        activated = ACT2FN[self._config.activation](self._linear(features, f"{name}.linear_1"))
        return self._linear(activated, f"{name}.linear_2")

    def _scored(self, text: Any, labels: Any) -> Any:  # noqa: ANN401  # torch is optional
        """The logit of each label beside its text: [labels]."""
        torch = self._place.torch
        if self._config.scorer == "simple":
            return (text * labels).sum(dim=-1)
        if self._config.scorer == "mlp":
            return self._layers(torch.cat((text, labels), dim=-1), "mlp", (0, 2, 4))
        text, text_gate = self._linear(text, "scorer.proj_text").chunk(2, dim=-1)
        labels, label_gate = self._linear(labels, "scorer.proj_label").chunk(2, dim=-1)
        return self._layers(torch.cat((text, labels, text_gate * label_gate), dim=-1), "out_mlp", (0, 3))

    def _layers(self, features: Any, name: str, numbers: Sequence[int]) -> Any:  # noqa: ANN401
        for number in numbers[:-1]:
            features = self._place.torch.relu(self._linear(features, f"scorer.{name}.{number}"))
        return self._linear(features, f"scorer.{name}.{numbers[-1]}")[:, 0]

    def _linear(self, features: Any, name: str) -> Any:  # noqa: ANN401  # torch is optional
        weights = self._weights
        return self._place.torch.nn.functional.linear(features, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def _tensor(self, values: npt.NDArray[Any]) -> Any:  # noqa: ANN401  # torch is optional
        return self._place.torch.from_numpy(np.ascontiguousarray(values)).to(self._place.device)


def _load(folder: ModelFolder, config: GliclassConfig, dtype: Any) -> tuple[Any, Mapping[str, Any]]:  # noqa: ANN401
    """The encoder, ready to compute, and the weights of the head by their names."""
    import transformers  # noqa: PLC0415  # heavy, and not a requirement of the worker
    from safetensors.torch import load_file  # noqa: PLC0415  # as above

    if not folder.safetensors_files():
        raise EngineError(f"{folder.path}: no model.safetensors; other weight formats can run code and are not loaded")
    try:
        given = {name: weight for file in folder.safetensors_files() for name, weight in load_file(file).items()}
        shape = transformers.AutoConfig.for_model(**config.encoder)
        encoder = transformers.AutoModel.from_config(shape, dtype=dtype, trust_remote_code=False)
        own = {name.removeprefix(_ENCODER): given.pop(name) for name in tuple(given) if name.startswith(_ENCODER)}
        missing = len(encoder.load_state_dict(own, strict=False).missing_keys)
    except Exception as error:  # transformers, torch and safetensors raise anything at all
        message = f"{folder.path}: transformers cannot load this model's encoder ({type(error).__name__})"
        raise EngineError(message) from error
    head = {name.removeprefix("model."): weight.to(dtype) for name, weight in given.items()}
    missing += sum(name not in head for name in _needed(config))
    if missing:
        raise EngineError(f"{folder.path}: {missing} weights of its architecture are missing: not a whole model")
    return encoder.eval(), head


def _needed(config: GliclassConfig) -> list[str]:
    """The weights of the head."""
    linear = [f"{name}_projector.linear_{number}" for name in ("text", "classes") for number in (1, 2)]
    linear += {
        "simple": [],
        "mlp": [f"scorer.mlp.{number}" for number in (0, 2, 4)],
        "weighted-dot": ["scorer.proj_text", "scorer.proj_label", "scorer.out_mlp.0", "scorer.out_mlp.3"],
    }[config.scorer]
    others = ["segment_embeddings.weight"] * config.has_segments + ["logit_scale"] * config.normalizes
    return [f"{name}.{part}" for name in linear for part in ("weight", "bias")] + others


def _places(batch: Batch, *, text_ends_labels: bool) -> _Places:
    """Where labels and text stand; with `text_ends_labels` the last label's span ends before the text."""
    rows, lengths = len(batch.lengths), batch.lengths.astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    row_of = np.repeat(np.arange(rows), lengths)
    labels = np.nonzero(batch.type_ids == _LABEL)[0]
    asked = np.ones(rows, np.int64) if batch.hypotheses is None else batch.hypotheses
    if not np.array_equal(np.bincount(row_of[labels], minlength=rows), asked):
        raise ValueError("a row that does not hold the labels that it asks about")
    text_from = starts.copy()
    marks = np.nonzero(batch.type_ids == _TEXT)[0][::-1]
    text_from[row_of[marks]] = marks  # the first of several
    is_text = np.arange(len(row_of)) >= text_from[row_of]
    owner = np.searchsorted(labels, np.arange(len(row_of)), side="right") - 1
    is_anothers = (owner < 0) | (row_of[labels[owner]] != row_of)
    owner[is_anothers | (is_text & text_ends_labels)] = -1
    return _Places(row_of, labels, owner, text_from if text_ends_labels else starts, is_text)
