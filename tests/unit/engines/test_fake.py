import numpy as np
import pytest

from tests.support.batches import batch_of
from worker.engines.fake import FakeEngine
from worker.errors import EngineError
from worker.types import NliHead


def test_the_same_pair_always_gets_the_same_logits() -> None:
    first, second = FakeEngine().score(batch_of([1, 2, 3])), FakeEngine().score(batch_of([1, 2, 3]))
    assert first.logits.tolist() == second.logits.tolist()


def test_pairs_that_differ_in_one_token_get_other_logits() -> None:
    rows = FakeEngine().score(batch_of([1, 2, 3], [1, 2, 4])).logits
    assert not np.array_equal(rows[0], rows[1])


def test_the_head_decides_how_many_columns_there_are() -> None:
    engine = FakeEngine(head=NliHead(classes=3, entailment=2, contradiction=0))
    assert engine.score(batch_of([1, 2])).logits.shape == (1, 3)


def test_a_closed_engine_scores_nothing() -> None:
    engine = FakeEngine()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.score(batch_of([1, 2]))
