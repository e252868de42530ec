import re
from pathlib import Path

from tests.support import fake_tensorrt


def test_the_extra_its_constraints_and_the_library_that_the_tests_stand_in_for_are_of_one_version() -> None:
    """What is checked here has to be what is installed: a new version of one is a new version of all."""
    named = re.findall(r"tensorrt-cu13(?:-bindings|-libs)?==([0-9.]+)", Path("pyproject.toml").read_text("utf-8"))
    assert len(named) >= 4
    assert set(named) == {fake_tensorrt.__version__}
