from pathlib import Path

import pytest

from worker.config import Config, fixed_config
from worker.fleet import Share
from worker.supervisor import ask, child_command, child_environment, visible_gpus


def config(**kafka: str) -> Config:
    return fixed_config(
        {
            "kafka": {"bootstrap_servers": "localhost:1", "group_id": "g", **kafka},
            "topics": [{"input": "in"}],
        }
    )


def test_a_process_has_its_own_port_threads_and_instance() -> None:
    environment = child_environment(config(instance_id="pod-0"), Share(2, 3), 4711)
    assert "4711" == environment["WORKER_HTTP__PORT"]
    assert "127.0.0.1" == environment["WORKER_HTTP__HOST"]
    assert "3" == environment["WORKER_THREADS"]
    assert "pod-0-2" == environment["WORKER_KAFKA__INSTANCE_ID"]


def test_without_an_instance_id_each_process_draws_its_own() -> None:
    assert "WORKER_KAFKA__INSTANCE_ID" not in child_environment(config(), Share(1, 1), 1)


def test_a_process_sees_its_gpu_and_no_other() -> None:
    assert "3" == child_environment(config(), Share(1, 1, gpu="3"), 1)["CUDA_VISIBLE_DEVICES"]


@pytest.mark.parametrize(
    ("named", "expected"),
    [("0,2", ["0", "2"]), ("GPU-a1, GPU-b2", ["GPU-a1", "GPU-b2"]), ("", []), ("-1", [])],
)
def test_the_gpus_are_those_that_the_environment_names(named: str, expected: list[str], tmp_path: Path) -> None:
    assert expected == visible_gpus({"CUDA_VISIBLE_DEVICES": named}, tmp_path)


def test_without_a_word_of_it_the_gpus_are_those_of_the_machine(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert ["0", "2", "10"] == visible_gpus({}, tmp_path)


def test_options_of_the_fleet_reach_every_process() -> None:
    command = child_command(Path("worker.yaml"), ["--engine", "fake"])
    assert ["worker.yaml", "--until-parent-ends", "--engine", "fake"] == command[-4:]


def test_who_does_not_answer_has_no_report() -> None:
    assert ask(1) is None
