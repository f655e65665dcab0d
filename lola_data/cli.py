"""The console script ``lola-data``: finds its commands through the entry-point group ``lola_data.commands``.

A command is imported only when it is called, so that ``--help`` is instant; a plug-in adds one by its own entry point.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import click

from lola_data.errors import LolaError

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "lola_data.commands"

SECTIONS: dict[str, dict[str, str]] = {
    "The whole road": {
        "init": "Write a commented recipe to start from.",
        "run": "Run a recipe: shards in, tokens, model and report out.",
        "status": "What each stage of a work folder has done.",
        "recipe": "Check a recipe, or print its JSON Schema.",
    },
    "Single stages": {
        "download": "Bring shards in.",
        "identify": "Identify the language of every document.",
        "dedup": "Remove exact, same-URL and near-duplicate documents.",
        "sample": "Choose how much of each language goes on.",
        "tokenizer": "Train a SentencePiece tokenizer and measure it per language.",
        "tokenize": "Turn text into token shards.",
        "train": "Train the mixture-of-experts model.",
        "generate": "Continue a prompt with a trained model.",
    },
    "Looking": {
        "balance": "How documents, bytes and tokens are spread over languages.",
        "languages": "The 167 languages of CulturaX.",
    },
}


class _Reported(click.ClickException):
    """A LolaError on its way out: one message, its own exit code."""

    def __init__(self, error: LolaError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code  # pyright: ignore[reportAttributeAccessIssue]

    def show(self, file: Any = None) -> None:
        click.echo(f"lola-data: error: {self.message}", file=file or sys.stderr)


class EntryPointGroup(click.Group):
    """A click group whose commands are entry points."""

    def _found(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, plug-ins included."""
        return sorted(self._found())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        point = self._found().get(cmd_name)
        if point is None:
            return None
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            if any(cmd_name in commands for commands in SECTIONS.values()):
                raise
            raise _Reported(
                LolaError(
                    f"{cmd_name}: the plug-in {point.value} cannot be loaded ({error}); "
                    f"mend or uninstall the package it came with"
                )
            ) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; an unknown one is refused with the nearest that there is."""
        import difflib

        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        if near and near[0] != args[0]:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing one."""
        found = self._found()
        for title, commands in SECTIONS.items():
            rows = [(name, text) for name, text in commands.items() if name in found]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        known = {name for commands in SECTIONS.values() for name in commands}
        extra = [(name, f"from {found[name].value}") for name in sorted(found.keys() - known)]
        if extra:
            with formatter.section("Plug-ins"):
                formatter.write_dl(extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a LolaError becomes one message and an exit code, without a traceback.

        So do a full disk and missing rights, wherever they are met: in what a library writes, for example.
        """
        try:
            return super().invoke(ctx)
        except LolaError as error:
            raise _Reported(error) from error
        except OSError as error:
            from lola_data.storage import DISK_ERRORS, disk_error

            place = error.filename or "a file"
            if error.errno in DISK_ERRORS:
                raise _Reported(LolaError(str(disk_error(place, error)))) from error
            if isinstance(error, PermissionError):
                message = f"{place}: {error.strerror}; check the rights of the file and of its folder"
                raise _Reported(LolaError(message)) from error
            raise


@click.group(
    cls=EntryPointGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with:  lola-data init --preset demo  and  lola-data run demo.yaml",
)
@click.version_option(package_name="lola-data", prog_name="lola-data")
def cli() -> None:
    """From CulturaX shards in 160+ languages to a balanced token corpus and a trained mixture-of-experts model."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Exit codes: 0 done, 1 the data or the machine is at fault, 2 the recipe or command line is,
    130 interrupted."""
    try:
        cli.main(args=arguments, prog_name="lola-data", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("lola-data: interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has left: not an error. stdout is replaced so that the interpreter can close it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
