"""The report of a comparison as a picture."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from worker.bench.peers import Script, peer_command
from worker.errors import FatalError

_PICTURE: Final = Script("picture.py", ("matplotlib",))


def draw_picture(report: Mapping[str, object], target: Path) -> None:
    """Write the comparison to `target` as a PNG. Blocks; matplotlib runs in an environment of its own.

    Raises:
        WorkerError: it cannot be drawn.
    """
    done = subprocess.run(
        peer_command(_PICTURE, [str(target)]), input=json.dumps(report), text=True, capture_output=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise FatalError(f"the picture could not be drawn: {lines[-1] if lines else 'no reason was given'}")
