"""A command with subcommands: which of them the words ask for."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from sgraf_deploy.cli.subcommands import CommandWithSubcommands


@click.group()
def main() -> None:
    """Stand in for the program."""


@click.command(cls=CommandWithSubcommands)
@click.argument("bundle", required=False)
@click.option("--often", is_flag=True, help="Again and again.")
def bench(*, bundle: str | None, often: bool) -> None:
    """Compare."""
    click.echo(f"compare {bundle} {often}")


@click.command("gpu", cls=CommandWithSubcommands)
@click.option("--small", is_flag=True, help="Little.")
def gpu(*, small: bool) -> None:
    """Run the steps."""
    click.echo(f"steps {small}")


@gpu.command()
@click.argument("folder")
def prepare(*, folder: str) -> None:
    """Collect."""
    click.echo(f"prepare {folder}")


main.add_command(bench)
bench.add_command(gpu)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ((), "compare None False"),
        (("b.sgraf",), "compare b.sgraf False"),
        (("--often", "b.sgraf"), "compare b.sgraf True"),
        (("b.sgraf", "--often"), "compare b.sgraf True"),
        (("./gpu", "--often"), "compare ./gpu True"),
        (("--often", "gpu"), "compare gpu True"),
        (("gpu",), "steps False"),
        (("gpu", "--small"), "steps True"),
        (("gpu", "prepare", "there"), "prepare there"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_the_first_word_says_what_runs(words: tuple[str, ...], printed: str) -> None:
    result = run("bench", *words)
    assert (result.exit_code, result.output) == (0, f"{printed}\n")


def test_the_help_shows_options_and_subcommands() -> None:
    text = run("bench", "--help").output
    assert text.startswith("Usage: main bench [OPTIONS] [BUNDLE]\n")
    assert "--often" in text
    assert "\nCommands:\n  gpu " in text
    assert run("bench", "gpu", "--help").output.startswith("Usage: main bench gpu [OPTIONS]\n")
    nested = run("bench", "gpu", "prepare", "--help").output
    assert nested.startswith("Usage: main bench gpu prepare [OPTIONS] FOLDER\n")


@pytest.mark.parametrize(
    "words",
    [("a", "b"), ("gpu", "--small", "prepare"), ("gpu", "nothing"), ("--no",), ("gpu", "prepare")],
    ids=" ".join,
)
def test_what_belongs_to_neither_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    assert run("bench", *words).exit_code == 2
