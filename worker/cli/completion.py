"""`worker completion`: what a shell needs to complete our commands and options."""

import os
from typing import Literal

import typer

_VARIABLE = "_WORKER_COMPLETE"
"""Set by the script when it asks for completions."""

Shell = Literal["bash", "zsh", "fish"]


def register(app: typer.Typer) -> None:
    """Add the command to `app`, and answer a shell that asks for completions."""
    app.command("completion")(completion)
    if _VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # re-exported without saying so

        completion_init()


def completion(shell: Shell = typer.Argument(help="For which shell.")) -> None:
    """Print the completion script: `source <(worker completion bash)`."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # as above

    print(get_completion_script(prog_name="worker", complete_var=_VARIABLE, shell=shell))
