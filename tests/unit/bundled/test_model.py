from worker.engines.artifact import open_folder
from worker.engines.golden import MIN_GOLDEN_PAIRS, golden_texts, read_golden
from worker.engines.source import BUNDLED_FOLDER


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
    }
    assert sum(files.values()) <= 26_000_000


def test_the_bundled_golden_pairs_are_the_texts_that_every_export_uses() -> None:
    golden = read_golden(open_folder(BUNDLED_FOLDER))
    assert golden is not None
    assert golden.pairs == golden_texts()
    assert len(golden.pairs) >= MIN_GOLDEN_PAIRS


def test_the_card_says_that_the_model_is_for_development() -> None:
    card = (BUNDLED_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "**For development.**" in card
    digest = open_folder(BUNDLED_FOLDER).digest(open_folder(BUNDLED_FOLDER).openvino_weights())
    assert digest in card
