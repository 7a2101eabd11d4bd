"""`headwater completion`: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from headwater.cli.command import command
from headwater.cli.session import Session, pass_session


@command("completion", example='eval "$(headwater completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_session
def completion(session: Session, shell: str) -> None:
    """Print the completion script of a shell.

    Put the example's line into the shell's start file, with the shell's own name.
    """
    from headwater.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, shell
    script = found(cli, {}, "headwater", "_HEADWATER_COMPLETE").source()
    session.output.result({"shell": shell, "script": script}, script)
