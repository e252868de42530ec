"""The command `worker`, also as `python -m worker`: quiet when it is interrupted, from the first moment on."""

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit.

    Ctrl-C while modules are being imported ends the process at once: nothing has been opened yet, and a traceback out
    of an import would tell nobody anything. Whoever started us with Ctrl-C ignored, as shells do in the background,
    is left that way.
    """
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, _leave)
    from worker.cli.main import main as run  # noqa: PLC0415  it takes a while, which is the point

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.stderr.flush()
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
