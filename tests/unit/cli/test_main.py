"""The command line says what went wrong in one line and an exit code."""

import subprocess
import sys

import pytest
import typer

from worker import __version__
from worker.cli import main as cli
from worker.errors import ConfigError, EngineError, FatalError, RetryableError, SchemaError, WorkerError


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def _exit_of_an_app_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> object:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "build_app", lambda: app)
    monkeypatch.setattr(sys, "argv", ["worker"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("worker.yaml: topics is missing"), 2),
        (SchemaError("labels is missing"), 2),
        (RetryableError("no broker"), 1),
        (FatalError("fenced twice"), 1),
        (EngineError("no weights"), 1),
        (WorkerError("two\nlines"), 1),
    ],
    ids=["config", "schema", "retryable", "fatal", "engine", "two-lines"],
)
def test_an_expected_failure_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: WorkerError, expected: int
) -> None:
    assert expected == _exit_of_an_app_that_raises(monkeypatch, error)

    printed = capsys.readouterr()
    assert "" == printed.out
    assert f"worker: {str(error).replace(chr(10), ' ')}\n" == printed.err


def test_each_thing_that_is_wrong_with_a_configuration_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ConfigError("worker.yaml: engine: expected\nanother", "worker.yaml: kafka: expected a mapping")
    assert 2 == _exit_of_an_app_that_raises(monkeypatch, error)
    told = ["worker: worker.yaml: engine: expected another", "worker: worker.yaml: kafka: expected a mapping"]
    assert told == capsys.readouterr().err.splitlines()


def test_an_interrupt_exits_as_shells_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 130 == _exit_of_an_app_that_raises(monkeypatch, KeyboardInterrupt())


def test_the_version_is_printed() -> None:
    result = _run("--version")

    assert (0, f"worker {__version__}\n", "") == (result.returncode, result.stdout, result.stderr)


def test_an_unknown_option_is_a_usage_error_without_a_traceback() -> None:
    result = _run("broker", "--no-such-option")

    assert (2, "") == (result.returncode, result.stdout)
    assert "Traceback" not in result.stderr


def test_help_does_not_wait_for_anything_heavy() -> None:
    program = (
        "import sys; from worker.cli.main import build_app; build_app(); "
        "print(sorted({'confluent_kafka', 'jgo', 'numpy', 'openvino', 'tokenizers', 'torch'} & set(sys.modules)))"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert "[]\n" == result.stdout


def test_an_interrupt_during_the_first_imports_is_quiet() -> None:
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'worker.cli.broker': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from worker.__main__ import main\n"
        "main()\n"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (130, "", "") == (result.returncode, result.stdout, result.stderr)
