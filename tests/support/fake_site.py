"""A folder that makes `import tensorrt` give the fake, for processes that a test starts."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_STAND_IN = """
import sys
from tests.support import fake_tensorrt
sys.modules[__name__] = fake_tensorrt
{more}
"""


def python_path(folder: Path, more: str = "") -> str:
    """The value for PYTHONPATH; `more` is run when the fake is imported."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tensorrt.py").write_text(_STAND_IN.format(more=more))
    kept = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(folder), str(ROOT), *([kept] if kept else [])])
