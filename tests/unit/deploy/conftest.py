"""helm, where it is."""

import os
import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def helm() -> str:
    """The program; `.ci/run deploy` puts it beside Go's own, where no PATH may lead."""
    folders = os.environ.get("PATH", "")
    if shutil.which("go") is not None:
        asked = subprocess.run(["go", "env", "GOPATH"], check=True, capture_output=True, text=True)
        folders += f"{os.pathsep}{asked.stdout.strip()}/bin"
    found = shutil.which("helm", path=folders)
    if found is None:
        pytest.skip("helm is not installed")
    return found
