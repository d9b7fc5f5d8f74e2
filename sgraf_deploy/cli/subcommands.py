"""A command that also has subcommands: `bench BUNDLE …` beside `bench gpu …`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click


class CommandWithSubcommands(click.Group):
    """Runs a subcommand where the first word is the name of one, and else itself on all words.

    A file or folder of a subcommand's name is given as `./NAME`. Options of the command stand
    before no subcommand, which would not know of them. `moved` are options that have become
    subcommands, by the subcommand's name: one of them is an error that spells the command anew.
    """

    allow_extra_args = False
    allow_interspersed_args = True

    def __init__(
        self, name: str | None = None, *, moved: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        self._moved = moved or {}
        super().__init__(name, invoke_without_command=True, subcommand_metavar="", **more)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """The context of what the words ask for, which is the subcommand's own where it is one."""
        subcommand = self.commands.get(args[0]) if args else None
        if subcommand is None:
            return super().make_context(info_name, args, parent, **extra)
        # A usage line names what is above without its arguments, which it does not take here.
        above = click.Context(click.Group(self.name), info_name=info_name, parent=parent)
        return subcommand.make_context(args[0], args[1:], parent=above, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """All words are its own."""
        from sgraf_deploy.errors import InputError

        for word in args:
            if word in self._moved:
                name = self._moved[word]
                rest = [one for one in args if one != word]
                hint = shlex.join([*ctx.command_path.split(), name, *rest])
                raise InputError(f"option {word}", expected=f"the command {name}", hint=hint)
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command itself: a subcommand has a context of its own."""
        return click.Command.invoke(self, ctx)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Its own options and arguments."""
        return click.Command.collect_usage_pieces(self, ctx)
