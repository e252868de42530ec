"""From nothing to a configuration, without a file being lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = ("--bootstrap-servers", "k:9092", "--topic", "news", "--labels", "sport,politics")


def run(folder: Path, *arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.argv[0] = 'worker'; from worker.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), **environment},
    )


def test_options_answer_all_questions(tmp_path: Path) -> None:
    result = run(tmp_path, "init", "new", *OPTIONS)
    assert (0, "") == (result.returncode, result.stderr)
    assert "input: news" in (tmp_path / "new" / "worker.yaml").read_text()
    assert "- name: politics" in (tmp_path / "new" / "schemas" / "news.yaml").read_text()


def test_what_no_option_says_is_asked_for_in_three_questions(tmp_path: Path) -> None:
    result = run(tmp_path, "init", typed="\nmails\nspam, ham\n")
    assert (0, 3) == (result.returncode, result.stdout.count("? ["))
    assert 'bootstrap_servers: "localhost:9092"' in (tmp_path / "worker.yaml").read_text()
    assert "\n    # text: [" in (tmp_path / "worker.yaml").read_text()
    assert "- name: ham" in (tmp_path / "schemas" / "mails.yaml").read_text()


def test_the_field_of_the_text_is_an_option_and_never_asked_for(tmp_path: Path) -> None:
    result = run(tmp_path, "init", "--text", "subject, /mail/body", typed="\n\n\n")
    assert (0, 3) == (result.returncode, result.stdout.count("? ["))
    assert "text: [/subject, /mail/body]" in (tmp_path / "worker.yaml").read_text()


SECTION = "# Mine.\nkafka:\n  bootstrap_servers: far:9094\n  group_id: mine\n  security_protocol: ssl\n"


def test_a_section_that_is_there_is_taken_over_and_nothing_of_it_asked_for(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SECTION)
    result = run(tmp_path, "init", "--kafka", "mine.yaml", *OPTIONS[2:])
    assert (0, "") == (result.returncode, result.stderr)
    assert SECTION in (tmp_path / "worker.yaml").read_text()
    assert 1 == (tmp_path / "worker.yaml").read_text().count("\nkafka:")


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("kafka: [", "cannot be read: expected a YAML file in UTF-8"),
        ("kafka: {}\nhttp: {}\n", "expected a `kafka` section and nothing else"),
        ("- kafka", "expected a `kafka` section and nothing else"),
        ("kafka: {bootstrap_servers: k}\n", "--kafka, --topic, --text: cannot be used: kafka.group_id"),
    ],
)
def test_a_section_that_cannot_be_used_is_refused(tmp_path: Path, section: str, told: str) -> None:
    (tmp_path / "mine.yaml").write_text(section)
    result = run(tmp_path, "init", "--kafka", "mine.yaml", *OPTIONS[2:])
    assert 2 == result.returncode
    assert told in result.stderr
    assert not (tmp_path / "worker.yaml").exists()


def test_where_kafka_is_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SECTION)
    result = run(tmp_path, "init", "--kafka", "mine.yaml", *OPTIONS)
    assert 2 == result.returncode
    assert "leave --bootstrap-servers out" in result.stderr


def test_nothing_is_overwritten_unless_asked_to(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    mine = tmp_path / "schemas" / "news.yaml"
    mine.write_text("mine")
    result = run(tmp_path, "init", *OPTIONS)
    assert 2 == result.returncode
    assert "schemas/news.yaml is there already" in result.stderr
    assert ("mine", False) == (mine.read_text(), (tmp_path / "worker.yaml").exists())
    assert 0 == run(tmp_path, "init", "--force", *OPTIONS).returncode
    assert "mine" != mine.read_text()


@pytest.mark.parametrize("command", [["run"], ["check"], ["dead-letters", "list"]])
def test_a_folder_without_a_configuration_is_told_how_to_get_one(tmp_path: Path, command: list[str]) -> None:
    result = run(tmp_path, *command)
    expected = "worker: worker.yaml: there is no such file; `worker init` writes a first one, -c names another\n"
    assert (2, "", expected) == (result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(tmp_path: Path, shell: str) -> None:
    result = run(tmp_path, "completion", shell)
    assert (0, "") == (result.returncode, result.stderr)
    assert "_WORKER_COMPLETE" in result.stdout


def test_the_completion_script_completes_commands(tmp_path: Path) -> None:
    asked = {"_WORKER_COMPLETE": "complete_bash", "COMP_WORDS": "worker dea", "COMP_CWORD": "1"}
    assert ["dead-letters"] == run(tmp_path, **asked).stdout.split()
