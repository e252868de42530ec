"""`worker plan`: what it prints is what docs/capacity.md shows."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from worker.cli.main import build_app
from worker.errors import ConfigError

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "capacity.md"
VALUES = ROOT / "deploy" / "helm" / "nli-stream-worker" / "values.yaml"
EXAMPLE = re.compile(r"```\n\$ worker (plan [^\n]+)\n(.*?)```", re.DOTALL)
ASKED = ("plan", "--messages-per-second", "50", "--labels", "8", "--tokens", "60")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), list(arguments))


@pytest.mark.parametrize(("command", "printed"), EXAMPLE.findall(PAGE.read_text()))
def test_the_examples_of_the_page_are_what_the_command_prints(command: str, printed: str) -> None:
    result = run(*shlex.split(command))
    assert (0, printed) == (result.exit_code, result.stdout)


def test_the_page_has_examples() -> None:
    assert 2 == len(EXAMPLE.findall(PAGE.read_text()))


def test_json_has_what_was_asked_and_what_came_of_it() -> None:
    found = json.loads(run(*ASKED, "--json").stdout)
    assert {"workload", "machine", "plan"} == set(found)
    assert 400 == found["plan"]["pairs_per_second"]
    assert found["machine"]["tokens_per_second_given"] is False


def test_it_says_where_the_figure_comes_from_unless_one_is_given() -> None:
    assert "worker bench engine" in run(*ASKED).stdout
    assert "worker bench engine" not in run(*ASKED, "--tokens-per-second", "50000").stdout


def test_too_few_partitions_fail_and_say_how_many() -> None:
    result = run(*ASKED, "--partitions", "2")
    assert 1 == result.exit_code
    assert "2 partitions do not suffice: 4 or more" in result.stdout
    assert "replicas:" not in result.stdout


def mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


@pytest.mark.parametrize("model_mib", ["10", "20000"])
def test_no_pod_asks_for_more_memory_than_its_limit(model_mib: str) -> None:
    printed = run(*ASKED, "--model-mib", model_mib).stdout
    block = printed.partition("In the values of the Helm chart:\n")[2].partition("\n\n")[0]
    planned = yaml.safe_load(block)["resources"]
    resources = yaml.safe_load(VALUES.read_text())["resources"]
    requests, limits = ({**resources[part], **planned.get(part, {})} for part in ("requests", "limits"))
    assert mebibytes(requests["memory"]) <= mebibytes(limits["memory"])


@pytest.mark.parametrize(
    ("option", "value"),
    [("--peak-factor", "inf"), ("--tokens-per-second", "inf"), ("--hypothesis-tokens", "600")],
)
def test_what_cannot_be_is_refused_by_name(option: str, value: str) -> None:
    result = run(*ASKED, option, value)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"{option}: expected")
