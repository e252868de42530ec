from pathlib import Path

from worker.engines.artifact import open_folder
from worker.engines.golden import MIN_GOLDEN_PAIRS, golden_texts, read_golden
from worker.engines.source import BUNDLED_FOLDER
from worker.training.card import read_provenance
from worker.training.sets import read_table


def test_the_bundled_model_is_complete_and_small() -> None:
    """A clone stays small: all files of the model together take at most 26 MB."""
    files = {file.name: file.stat().st_size for file in BUNDLED_FOLDER.iterdir()}
    assert set(files) == {
        "README.md",
        "config.json",
        "golden.json",
        "openvino_model.bin",
        "openvino_model.xml",
        "token_vectors.npz",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    }
    assert sum(files.values()) <= 26_000_000


def test_the_bundled_golden_pairs_are_the_texts_that_every_export_uses() -> None:
    golden = read_golden(open_folder(BUNDLED_FOLDER))
    assert golden is not None
    assert golden.pairs == golden_texts()
    assert len(golden.pairs) >= MIN_GOLDEN_PAIRS


def test_the_bundled_model_saw_only_sets_that_let_a_model_be_given_away_and_the_card_names_each() -> None:
    known = read_provenance(BUNDLED_FOLDER)
    assert known is not None
    card = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")
    uses = [use for stage in known.stages for use in stage.uses]
    assert uses
    assert {"yes"} == {use.ship for use in uses}
    shipped = read_table(Path(__file__).parents[3] / "recipes" / "universal-sets.yaml").shippable()
    assert {use.name for use in uses} <= {each.name for each in (*shipped.classification, *shipped.nli)}
    assert [] == [use.name for use in uses if f"| {use.name} |" not in card]


def test_the_card_names_the_digest_of_the_model_beside_it() -> None:
    card = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")
    digest = open_folder(BUNDLED_FOLDER).digest(open_folder(BUNDLED_FOLDER).openvino_weights())
    assert digest in card
