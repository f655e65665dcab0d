"""A command that has subcommands beside arguments of its own: ``train TREE RUN`` and ``train plot RUN``.

The first word decides. If it names a subcommand, that is called and knows nothing of the command above it; if not, the
words are those of the command itself, as if it had no subcommands.
"""

from __future__ import annotations

from typing import Any

import click


class CommandWithSubcommands(click.Group):
    """A click command with subcommands. A folder called like a subcommand is given as ``./plot``."""

    # A plain command's ways, not a group's: options may stand after arguments, words too many are refused.
    allow_extra_args = False
    allow_interspersed_args = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **kwargs})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave the words of a subcommand to it; read all others."""
        if args and args[0] in self.commands:
            ctx.invoked_subcommand = args[0]
            ctx.args = args[1:]
            return ctx.args
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand, or the command itself."""
        name = ctx.invoked_subcommand
        if name is None:
            return click.Command.invoke(self, ctx)
        # Not a child of this context: the usage line would show the arguments of this command too.
        with self.commands[name].make_context(f"{ctx.info_name} {name}", ctx.args, parent=ctx.parent) as inner:
            return inner.command.invoke(inner)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The usage line of the command itself."""
        return click.Command.collect_usage_pieces(self, ctx)
