"""The instruction engine says what transformers says of the same options, whatever shares their batch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_t5 import write_tiny_t5
from tests.support.training_data import write_world
from worker.classifier import open_classifier
from worker.clock import ManualClock
from worker.engines.generic_torch import TorchOptions
from worker.engines.golden import join_batches, ranking_golden
from worker.engines.load import EngineChoice, load_engine
from worker.engines.t5_rank import T5RankEngine, open_ranking_folder
from worker.errors import ConfigError, EngineError, EngineOutOfMemoryError
from worker.labels.schema import parse_schema
from worker.settings import Limits
from worker.training.evaluate import evaluate_task
from worker.training.scoring import Meter, Scorer
from worker.training.sets import read_table
from worker.training.tasks import Sampling, table_task
from worker.types import Prediction, Record

LABELS = ("billing", "bug", "the weather of tomorrow")


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_t5(tmp_path_factory.mktemp("t5") / "tiny")


def _transformers_likelihood(folder: Path, prompt: str, option: str) -> float:
    """Minus the loss that transformers itself computes for the option as the answer to the prompt."""
    import torch  # noqa: PLC0415  # optional
    import transformers  # noqa: PLC0415  # optional
    from tokenizers import Tokenizer  # noqa: PLC0415  # only here

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    ids, target = (torch.tensor([tokenizer.encode(text).ids]) for text in (prompt, option))
    with torch.no_grad():
        return -float(model(input_ids=ids, labels=target).loss)


def test_scores_are_a_softmax_over_the_likelihoods_that_transformers_gives(t5: Path, tmp_path: Path) -> None:
    schema = parse_schema(
        {
            "name": "x",
            "version": 1,
            "instruction": "which is it?",
            "hypothesis_templates": ["this is {}"],
            "labels": [{"name": name} for name in LABELS],
        },
        "x",
    )
    texts = ["the app is late", "text " * 20, "about the bug"]
    records = [Record("t", 0, n, 0, None, json.dumps({"text": text}).encode()) for n, text in enumerate(texts)]

    with open_classifier(EngineChoice(str(t5), "t5_rank", cache_dir=tmp_path), schema, Limits()) as (classifier, stamp):
        answers = list(classifier.answers(records))

    assert ("t5_rank", "float32") == (stamp.engine, stamp.precision)
    options = [f"this is {name}" for name in LABELS]
    for text, answer in zip(texts, answers, strict=True):
        prompt = "\n".join((text, "", "which is it?", "OPTIONS:", *(f"- {option}" for option in options)))
        likelihood = np.array([_transformers_likelihood(t5, prompt, option) for option in options])
        expected = np.exp(likelihood) / np.exp(likelihood).sum()
        assert isinstance(answer.outcome, Prediction)
        found = {score.label: score.score for score in answer.outcome.scores}
        assert np.abs(expected - [found[name] for name in LABELS]).max() < 1e-5
        assert LABELS[int(expected.argmax())] == answer.outcome.label


def test_a_prompt_is_encoded_once_for_all_its_options(t5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_ranking_folder(t5)
    engine = T5RankEngine(folder, TorchOptions(device="cpu"))
    single = ranking_golden(folder)[0]
    encoder = engine._module.get_encoder()
    forward, rows = encoder.forward, list[int]()

    def counted(**given: Any) -> Any:  # noqa: ANN401  # torch is optional
        rows.append(len(given["input_ids"]))
        return forward(**given)

    monkeypatch.setattr(encoder, "forward", counted)

    logits = engine.score(join_batches([single] * 5)).logits

    assert [1] == rows
    assert np.abs(logits - engine.score(single).logits).max() < 1e-4


def test_the_engine_passes_its_gate_and_keeps_its_likelihoods_in_any_batch(t5: Path, tmp_path: Path) -> None:
    loaded = load_engine(EngineChoice(str(t5), "t5_rank", cache_dir=tmp_path))

    assert loaded.gate is not None
    assert loaded.gate.passed
    assert loaded.gate.batch_dependence < 1e-3  # of likelihoods around -100
    assert "options" == loaded.engine.info.reading
    loaded.engine.close()
    with pytest.raises(EngineError, match="closed"):
        loaded.engine.score(ranking_golden(open_ranking_folder(t5))[0])


def test_what_is_no_t5_and_what_overflows_is_refused(t5: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))

    with pytest.raises(EngineError, match="not a T5"):
        load_engine(EngineChoice(str(tmp_path), "t5_rank"))
    with pytest.raises(ConfigError, match="float16"):
        load_engine(EngineChoice(str(t5), "t5_rank", "float16"))
    with pytest.raises(ConfigError, match="bundled"):
        load_engine(EngineChoice(engine="t5_rank"))


def test_too_little_memory_for_a_batch_is_named_as_such_and_a_smaller_one_is_scored(
    t5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: PLC0415  # optional

    folder = open_ranking_folder(t5)
    engine = T5RankEngine(folder, TorchOptions(device="cpu"))
    singles = ranking_golden(folder)[:4]
    likelihood = engine._likelihood

    def scarce(prompts: Any, rows: Any, options: Any) -> Any:  # noqa: ANN401  # passed on
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return likelihood(prompts, rows, options)

    monkeypatch.setattr(engine, "_likelihood", scarce)
    with pytest.raises(EngineOutOfMemoryError, match=r"lower batching\.max_tokens"):
        engine.score(join_batches(singles))
    assert engine.score(singles[0]).logits.shape == (1, 2)
    engine.close()


def test_it_is_measured_beside_nli_models_each_template_by_itself(t5: Path, tmp_path: Path) -> None:
    table = read_table(write_world(tmp_path))
    task = table_task(table.classification[0], tmp_path, Sampling(texts=6))
    assert task is not None
    loaded = load_engine(EngineChoice(str(t5), "t5_rank", cache_dir=tmp_path))
    scorer = Scorer(loaded, Meter(ManualClock()))

    both = evaluate_task(scorer, task, ("t5", None))
    first = parse_schema(
        {**task.schema.document(), "hypothesis_templates": [task.schema.hypothesis_templates[0]]}, "first"
    )
    alone = evaluate_task(scorer, replace(task, schema=first), ("t5", None))

    assert 2 == len(both.templates)
    assert both.templates[0] == alone.templates[0]
    loaded.engine.close()
