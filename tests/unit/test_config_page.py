from pathlib import Path

from worker.config_page import page


def test_the_page_on_configuration_says_what_the_code_says() -> None:
    assert page() == Path("docs/configuration.md").read_text(encoding="utf-8")
