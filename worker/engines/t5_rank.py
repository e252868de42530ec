"""The instruction engine: an encoder-decoder ranks the options of a prompt by how likely it is to answer with each.

A pair carries the prompt as type 0 and the option as type 1. The prompt of a text is encoded once for all its options
that share a batch; each option is a short row of the decoder. What is said of a pair is the mean log-likelihood of the
option's tokens, its end included (rank classification: Wei et al. 2022, section 2.3, normalised by length).
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.engines.artifact import (
    CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    ModelFolder,
    read_json_object,
)
from worker.engines.checkpoints import load_module
from worker.engines.generic_torch import TorchOptions, open_torch
from worker.engines.layout import checked_logits
from worker.engines.memory import with_memory_errors_told
from worker.errors import EngineError, EngineOutOfMemoryError
from worker.types import Batch, EngineInfo, ModelStamp, NliHead, PairRef, PairScores

HEAD: Final = NliHead(classes=2, entailment=0, contradiction=1)
"""The likelihood of the option stands in the first column; the second is 0."""
_MAX_PAIR_TOKENS: Final = 512
"""What Flan-T5 was trained on; its relative positions have no end of their own."""
_TOKEN_BUDGET: Final = 8192
_PROMPT, _OPTION = 0, 1


class T5RankEngine:
    """A T5 in safetensors, run by transformers; no code of the model's own is run."""

    def __init__(self, folder: ModelFolder, options: TorchOptions) -> None:
        """Load the model; takes seconds.

        Raises:
            ConfigError: a precision this engine has not.
            EngineError: torch is not installed, or the folder's model cannot be loaded.
        """
        self._place = place = open_torch("t5_rank", options)
        self._module: Any = load_module(folder, "AutoModelForSeq2SeqLM", place.dtype).to(self._place.device)
        config = self._module.config
        start = config.decoder_start_token_id
        self._start = int(config.pad_token_id if start is None else start)
        self._pad_id = folder.pad_token_id
        self._info = EngineInfo(
            stamp=ModelStamp(folder.name, folder.digest(folder.safetensors_files()), "t5_rank", place.precision),
            head=HEAD,
            max_pair_tokens=folder.max_pair_tokens,
            token_budget=max(_TOKEN_BUDGET, folder.max_pair_tokens),
            details=place.details,
            reading="options",
        )

    @property
    def info(self) -> EngineInfo:
        """What was loaded; constant for the life of the engine."""
        return self._info

    def warm_up(self) -> None:
        """Run a short and a long prompt once."""
        for tokens in (8, self._info.max_pair_tokens):
            types = np.zeros(tokens, np.int32)
            types[-2:] = _OPTION
            self.score(Batch((PairRef(0, 0),), np.ones(tokens, np.int32), types, np.array([tokens], np.int32)))

    def score(self, batch: Batch) -> PairScores:
        """Of every pair the mean log-likelihood of its option and 0, float32 [pairs, 2], in the batch's order. Blocks.

        Raises:
            EngineOutOfMemoryError: there is no memory for this batch.
            EngineError: the engine is closed.
            ValueError: a pair has no prompt or no option, or a likelihood is not finite.
        """
        if self._module is None:
            raise EngineError("the t5_rank engine is closed")
        if not len(batch.lengths):
            return PairScores(np.empty((0, HEAD.classes), np.float32))
        prompts, options = _apart(batch)
        unique = list(dict.fromkeys(each.tobytes() for each in prompts))
        places = {prompt: place for place, prompt in enumerate(unique)}
        rows = np.array([places[each.tobytes()] for each in prompts], np.int64)
        first = [np.frombuffer(prompt, np.int32) for prompt in unique]
        try:
            likelihood = with_memory_errors_told(lambda: self._likelihood(first, rows, options))
        except EngineOutOfMemoryError:
            # What the failed attempt had reserved would stand in the way of a smaller one.
            self._place.empty_cache()
            raise
        return PairScores(checked_logits(np.stack((likelihood, np.zeros_like(likelihood)), axis=1), len(rows), HEAD))

    def close(self) -> None:
        """Give back memory. Not to be used after."""
        self._module = None
        self._place.empty_cache()

    def _likelihood(
        self,
        prompts: list[npt.NDArray[np.int32]],
        rows: npt.NDArray[np.int64],
        options: list[npt.NDArray[np.int32]],
    ) -> npt.NDArray[np.float32]:
        torch = self._place.torch
        ids, mask = self._padded(prompts, self._pad_id)
        target, is_target = self._padded(options, self._pad_id)
        shifted = torch.full_like(target, self._start)
        shifted[:, 1:] = target[:, :-1]
        with torch.inference_mode():
            encoded = self._module.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
            chosen = torch.from_numpy(rows).to(self._place.device)
            logits = self._module(
                encoder_outputs=(encoded[chosen],), attention_mask=mask[chosen], decoder_input_ids=shifted
            ).logits.float()
            each = torch.log_softmax(logits, dim=-1).gather(2, target[:, :, None])[:, :, 0] * is_target
            return np.asarray((each.sum(dim=1) / is_target.sum(dim=1)).cpu().numpy(), np.float32)

    def _padded(self, rows: list[npt.NDArray[np.int32]], pad_id: int) -> tuple[Any, Any]:
        lengths = np.array([len(row) for row in rows])
        is_token = np.arange(lengths.max()) < lengths[:, None]
        filled = np.full(is_token.shape, pad_id, np.int64)
        filled[is_token] = np.concatenate(rows)
        torch = self._place.torch
        return torch.from_numpy(filled).to(self._place.device), torch.from_numpy(is_token.astype(np.int64)).to(
            self._place.device
        )


def open_ranking_folder(path: Path, name: str | None = None) -> ModelFolder:
    """The encoder-decoder in the folder `path`, called `name` or like the folder.

    Raises:
        EngineError: a file is missing or broken, or the model is no T5.
    """
    config = read_json_object(path / CONFIG_FILE)
    if config.get("model_type") not in {"t5", "mt5", "umt5"}:
        raise EngineError(f"{path}: not a T5: {CONFIG_FILE} names another model_type; engine: t5_rank takes T5 models")
    if not (path / TOKENIZER_FILE).is_file():
        raise EngineError(f"{path}: no {TOKENIZER_FILE}: not a model folder")
    most = _MAX_PAIR_TOKENS
    if (path / TOKENIZER_CONFIG_FILE).is_file():
        given = read_json_object(path / TOKENIZER_CONFIG_FILE).get("model_max_length")
        # transformers writes 1e30 for "no limit"
        most = int(given) if isinstance(given, int | float) and given <= _MAX_PAIR_TOKENS else most
    pad = config.get("pad_token_id")
    return ModelFolder(path, name or path.resolve().name, HEAD, most, pad if isinstance(pad, int) else 0, True)  # noqa: FBT003  # it has type ids: they tell prompt from option


def _apart(batch: Batch) -> tuple[list[npt.NDArray[np.int32]], list[npt.NDArray[np.int32]]]:
    """The prompts and the options of a batch."""
    ends = np.cumsum(batch.lengths)[:-1]
    prompts, options = [], []
    for ids, types in zip(np.split(batch.token_ids, ends), np.split(batch.type_ids, ends), strict=True):
        prompt, option = ids[types == _PROMPT], ids[types == _OPTION]
        if not prompt.size or not option.size:
            raise ValueError("a pair without a prompt or without an option: this engine needs both")
        prompts.append(np.ascontiguousarray(prompt, np.int32))
        options.append(option)
    return prompts, options
