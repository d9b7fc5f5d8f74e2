"""The command line: each command parses its options, calls one function and prints the result.

Each command is a module, which imports heavy packages only when it runs, so that `--help` answers
at once. Exit codes: 0 for success, 1 if a bound or a gate failed, 2 for bad usage or input, 3 where
`features` left photographs out; as in a shell, 130 after Ctrl-C and 141 when the reader of a pipe
has gone.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import click

from sgraf_deploy import __version__
from sgraf_deploy.cli.bench import bench
from sgraf_deploy.cli.card import card
from sgraf_deploy.cli.compare import compare
from sgraf_deploy.cli.compile import compile_
from sgraf_deploy.cli.demo import demo
from sgraf_deploy.cli.doctor import doctor
from sgraf_deploy.cli.evaluate import evaluate
from sgraf_deploy.cli.explain import explain
from sgraf_deploy.cli.export import export
from sgraf_deploy.cli.features import features
from sgraf_deploy.cli.gallery import gallery
from sgraf_deploy.cli.index import index
from sgraf_deploy.cli.inspect import inspect
from sgraf_deploy.cli.package import package
from sgraf_deploy.cli.rerank import rerank
from sgraf_deploy.cli.score import score
from sgraf_deploy.cli.serve import serve
from sgraf_deploy.cli.synth import synth
from sgraf_deploy.cli.terminal import echo, echo_error, show_any_text, shown_messages
from sgraf_deploy.cli.train import train
from sgraf_deploy.cli.verify import verify
from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.files.disk import hint_for

INTERRUPTED = 130
PIPE_CLOSED = 141

_EXIT_CODES = (
    "Exit codes: 0 for success, 1 if a bound or the gate failed, 2 for bad usage or input, 3 where "
    "`features` left photographs out."
)

log = logging.getLogger(__name__)


class _Failure(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message through `echo`, which escapes it; the exit code says it, too."""
        try:
            self.tell()
        except OSError:  # a full disk, or a pipe that nobody reads
            _abandon(sys.stderr.fileno)

    def tell(self) -> None:
        """Print what `show` shows."""
        echo(f"Error: {self.message}", err=True)


class _Failed(_Failure):
    """The same with exit code 1, for a bound or a gate that failed."""

    exit_code = 1


class _Misused(_Failure):
    """Bad usage: shows the command's usage above the message."""

    def __init__(self, error: click.UsageError) -> None:
        super().__init__(error.format_message())
        self._context = error.ctx

    def tell(self) -> None:
        """Print the usage, as click does, and the message."""
        if self._context is not None:
            for line in self._context.get_usage().splitlines():
                echo(line, err=True)
            echo(f"Try '{self._context.command_path} -h' for help.", err=True)
            echo(err=True)
        super().tell()


class _Group(click.Group):
    """Turns every error, also one raised while help is printed, into one line and an exit code."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run as a command; an unexpected error prints its traceback and exits with 1."""
        show_any_text()
        run: Any = super().main
        try:
            return run(*args, standalone_mode=standalone_mode, **extra)
        except Exception as error:
            if not standalone_mode:
                raise
            echo_error(error)
            echo(f"Error: unexpected error: {type(error).__name__}: {error}", err=True)
            sys.exit(_Failed.exit_code)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        with _in_one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _in_one_line():
            return super().invoke(ctx)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except SgrafDeployError as error:
        raise _failure(error, error) from error
    except MemoryError as error:
        hint = "free memory, or use fewer images with --limit-images"
        raise _failure(error, InputError("out of memory", got=error, hint=hint)) from error
    except click.UsageError as error:
        if type(error).show is not click.UsageError.show:
            raise  # a group was called without a command: click shows its help
        raise _Misused(error) from error
    except KeyboardInterrupt as error:
        echo("Interrupted", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from error
    except OSError as error:
        if not _can_print():
            _abandon(sys.stdout.fileno)
        if error.errno == errno.EPIPE:
            raise click.exceptions.Exit(PIPE_CLOSED) from error
        raise _failure(error, _system_error(error)) from error


def _failure(error: Exception, shown: SgrafDeployError) -> _Failure:
    log.debug("the error comes from here", exc_info=error)
    return (_Failed if shown.exit_code == _Failed.exit_code else _Failure)(str(shown))


def _system_error(error: OSError) -> InputError:
    """What the operating system refused, with the file's name if it gives one."""
    named = error.filename is not None
    what = os.fsdecode(error.filename) if named else "standard output or an open file"
    hint = hint_for(error) or "run `sgraf-deploy --verbose …` to see where"
    return InputError(what, got=error.strerror or error, hint=hint)


def _can_print() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _abandon(descriptor: Callable[[], int]) -> None:
    """Send Python's last flush of a stream, at exit, to the null device: it would fail again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor())


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sgraf-deploy")
@click.option(
    "-v", "--verbose", is_flag=True, help="Show log messages of every level on standard error."
)
@click.pass_context
def main(context: click.Context, /, *, verbose: bool) -> None:
    """Turn trained SGRAF checkpoints into verified, fast image-text rerankers."""
    context.with_resource(shown_messages(verbose=verbose))


main.epilog = (
    f"Start with `sgraf-deploy demo`, or with `sgraf-deploy export CHECKPOINT`.  {_EXIT_CODES}"
)
_COMMANDS = (
    *(export, compile_, inspect, package, verify, evaluate, bench, compare, rerank, explain, card),
    *(features, score, index, gallery, serve, synth, train, doctor, demo),
)
for _command in _COMMANDS:
    main.add_command(_command)
