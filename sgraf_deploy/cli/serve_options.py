"""The options of `sgraf-deploy serve`, each of them an environment variable, too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sgraf_deploy.cli.common import PATH, F
from sgraf_deploy.cli.option_types import FiniteRange, byte_count
from sgraf_deploy.cli.terminal import warn

if TYPE_CHECKING:
    from sgraf_deploy.serve.queue import BatchLimits
    from sgraf_deploy.serve.server import ServerOptions
    from sgraf_deploy.serve.settings import Settings

PREFIX = "SGRAF_DEPLOY_SERVE_"
KUBERNETES = re.compile(
    rf"{PREFIX}(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
"""Variables that a Service named sgraf-deploy-serve puts into each container beside it."""


@dataclass(frozen=True)
class RequestOptions:
    """How requests are read, and the limits on them."""

    served_model_name: tuple[str, ...]
    image_prefix: str
    missing: Literal["error", "skip"]
    truncate: bool
    timeout_ms: int
    max_documents: int
    max_body: int
    body_timeout_s: float

    def settings(self) -> Settings:
        """The same, as the service takes them."""
        from sgraf_deploy.serve.settings import Limits, Settings

        limits = Limits(
            body_bytes=self.max_body, body_s=self.body_timeout_s, documents=self.max_documents
        )
        return Settings(
            models=self.served_model_name,
            image_prefix=self.image_prefix,
            missing=self.missing,
            truncate=self.truncate,
            timeout_s=self.timeout_ms / 1000,
            limits=limits,
        )


@dataclass(frozen=True)
class BatchOptions:
    """How much is scored at a time, and how much may wait."""

    max_batch_pairs: int
    max_queue_pairs: int
    max_wait_ms: float

    def limits(self) -> BatchLimits:
        """The same, as the batcher takes them."""
        from sgraf_deploy.serve.queue import BatchLimits

        return BatchLimits(self.max_batch_pairs, self.max_queue_pairs, self.max_wait_ms / 1000)


@dataclass(frozen=True)
class ListenOptions:
    """Where the server listens, and how it ends."""

    host: str
    port: int
    drain_delay_s: float
    shutdown_timeout_s: float
    watchdog_s: float
    keep_alive_s: int
    tls_certificate: Path | None
    tls_private_key: Path | None

    def options(self) -> ServerOptions:
        """The same, as the server takes them."""
        from sgraf_deploy.serve.server import ServerOptions

        return ServerOptions(
            host=self.host,
            port=self.port,
            drain_delay_s=self.drain_delay_s,
            shutdown_timeout_s=self.shutdown_timeout_s,
            watchdog_s=self.watchdog_s,
            keep_alive_s=self.keep_alive_s,
            certificate=self.tls_certificate,
            private_key=self.tls_private_key,
        )


class _Port(click.IntRange):
    """A port; what Kubernetes puts into a variable of the same name is refused."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and "://" in value:
            from sgraf_deploy.errors import InputError

            raise InputError(
                f"{PREFIX}PORT",
                expected="a number",
                got=value,
                hint="Kubernetes sets it for a Service named sgraf-deploy-serve: rename the "
                "Service, set enableServiceLinks: false, or give --port",
            )
        return int(super().convert(value, param, ctx))


class _MayBeEmpty(click.Option):
    """An option whose variable may be set to nothing, which is a value."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        return os.environ.get(variable(self))


def request_options(command: F) -> F:
    """Add the options of `RequestOptions`."""
    for option in (
        _seconds("--body-timeout-s", 30.0, "Seconds that a request's body may take to arrive."),
        click.option(
            "--max-body",
            default="32MB",
            show_default=True,
            metavar="BYTES",
            callback=byte_count,
            help="The most bytes of a request's body.",
        ),
        _number("--max-documents", 1000, "The most documents of a request."),
        _number(
            "--timeout-ms",
            30_000,
            "Milliseconds in which a request is answered; a client may "
            "ask for fewer with the header X-Timeout-Ms.",
        ),
        click.option(
            "--truncate", is_flag=True, help="Cut captions that are too long, with a warning."
        ),
        click.option(
            "--missing",
            type=click.Choice(["error", "skip"]),
            default="error",
            show_default=True,
            help="What an id is that the gallery does not have: an error, or left out, with a "
            "warning.",
        ),
        click.option(
            "--image-prefix",
            cls=_MayBeEmpty,
            default="image:",
            show_default=True,
            metavar="TEXT",
            help="A string that begins so is the id of an image. Empty: every string of the "
            "documents is one.",
        ),
        click.option(
            "--served-model-name",
            multiple=True,
            default=["sgraf"],
            show_default=True,
            metavar="NAME",
            help="Name by which clients may ask for the model; repeat it for several.",
        ),
    ):
        command = option(command)
    return command


def batch_options(command: F) -> F:
    """Add the options of `BatchOptions`."""
    for option in (
        click.option(
            "--max-wait-ms",
            type=FiniteRange(min=0),
            default=0.0,
            show_default=True,
            metavar="MS",
            help="Milliseconds that an idle engine waits for more requests before it begins.",
        ),
        _number(
            "--max-queue-pairs",
            16_384,
            "The most pairs that may wait; a request that does not fit is answered with 429.",
        ),
        _number("--max-batch-pairs", 512, "The most pairs that are scored at a time."),
    ):
        command = option(command)
    return command


def listen_options(command: F) -> F:
    """Add the options of `ListenOptions`."""
    for option in (
        click.option("--tls-private-key", type=PATH, metavar="FILE", help="Its private key."),
        click.option(
            "--tls-certificate",
            type=PATH,
            metavar="FILE",
            help="Certificate chain in PEM; the server then speaks HTTPS.",
        ),
        _number("--keep-alive-s", 5, "Seconds that an idle connection is kept."),
        _seconds(
            "--watchdog-s",
            60.0,
            "Seconds of one engine call after which the engine hangs and the process exits with 1.",
        ),
        _seconds(
            "--shutdown-timeout-s",
            30.0,
            "Seconds in which accepted requests are answered after the last connection was taken.",
        ),
        click.option(
            "--drain-delay-s",
            type=FiniteRange(min=0),
            default=0.0,
            show_default=True,
            metavar="S",
            help="Seconds after SIGTERM in which /readyz is 503 and connections are still taken.",
        ),
        click.option(
            "--port",
            type=_Port(0, 65_535),
            default=8000,
            show_default=True,
            metavar="N",
            help="Port to listen at; 0 is a free one, which is printed.",
        ),
        click.option(
            "--host",
            default="127.0.0.1",
            show_default=True,
            metavar="ADDRESS",
            help="Address to listen at. One that other machines reach needs --keys or --no-auth.",
        ),
    ):
        command = option(command)
    return command


def _number(name: str, default: int, text: str) -> Any:
    kind = click.IntRange(min=1)
    return click.option(name, type=kind, default=default, show_default=True, metavar="N", help=text)


def _seconds(name: str, default: float, text: str) -> Any:
    kind = FiniteRange(min=0, min_open=True)
    return click.option(name, type=kind, default=default, show_default=True, metavar="S", help=text)


def variable(parameter: click.Parameter) -> str:
    """The environment variable of an option or an argument: its name in capitals."""
    name = max(parameter.opts, key=len).lstrip("-")
    return PREFIX + name.replace("-", "_").upper()


def read_environment(command: click.Command) -> None:
    """Have every option and argument of a command read its variable where it is not given."""
    for parameter in command.params:
        parameter.envvar = variable(parameter)


def check_environment(command: click.Command, names: Iterable[str]) -> None:
    """Warn of variables that look like options and are none; Kubernetes' own are ignored."""
    known = {variable(parameter) for parameter in command.params}
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known and not KUBERNETES.fullmatch(name):
            warn(f"the environment variable {name} is no option and is ignored")
