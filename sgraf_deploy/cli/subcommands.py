"""A command that also has subcommands, such as `bench BUNDLE …` and `bench gpu …`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click


class CommandWithSubcommands(click.Group):
    """Runs a subcommand if the first word is its name, and otherwise itself with all words.

    A file or folder with the name of a subcommand is given as `./NAME`. Options of the command may
    not stand before a subcommand, which would not receive them. `moved` maps options that have
    become subcommands to the names of these; using one is an error whose hint is the new command.
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
        """The context of the subcommand, if the first word names one, or else of this command."""
        subcommand = self.commands.get(args[0]) if args else None
        if subcommand is None:
            return super().make_context(info_name, args, parent, **extra)
        # A usage line names the parents without their arguments, which are not taken here.
        above = click.Context(click.Group(self.name), info_name=info_name, parent=parent)
        return subcommand.make_context(args[0], args[1:], parent=above, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse all words as this command's; InputError for an option that was moved."""
        from sgraf_deploy.errors import InputError

        for word in args:
            if word in self._moved:
                name = self._moved[word]
                rest = [other for other in args if other != word]
                hint = shlex.join([*ctx.command_path.split(), name, *rest])
                raise InputError(f"option {word}", expected=f"the command {name}", hint=hint)
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command itself: a subcommand is invoked through another context."""
        return click.Command.invoke(self, ctx)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The options and arguments of this command, without those of subcommands."""
        return click.Command.collect_usage_pieces(self, ctx)
