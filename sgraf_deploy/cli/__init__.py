"""The command line: parse, call one function, print.

Commands live in modules of their own and import what is heavy when they run, so that `--help`
answers at once. Exit codes: 0 done, 1 a bound or a gate failed, 2 bad usage or input.
"""

from __future__ import annotations

import logging
from typing import Any

import click

from sgraf_deploy import __version__
from sgraf_deploy.cli.doctor import doctor
from sgraf_deploy.cli.evaluate import evaluate
from sgraf_deploy.cli.export import export
from sgraf_deploy.cli.inspect import inspect
from sgraf_deploy.cli.rerank import rerank
from sgraf_deploy.cli.verify import verify
from sgraf_deploy.errors import SgrafDeployError


class _Failure(click.ClickException):
    def __init__(self, error: SgrafDeployError) -> None:
        super().__init__(str(error))
        self.exit_code = error.exit_code


class _Group(click.Group):
    """Turns this package's errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SgrafDeployError as error:
            raise _Failure(error) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sgraf-deploy")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens in between.")
def main(verbose: bool) -> None:
    """Turn trained SGRAF checkpoints into verified, fast image-text rerankers."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s %(message)s"
    )


for _command in (export, inspect, verify, evaluate, rerank, doctor):
    main.add_command(_command)
