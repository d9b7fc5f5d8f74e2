"""`sgraf-deploy serve`: answers rerank requests over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import (
    BUNDLE_PATH,
    NO_PRUNE,
    PATH,
    RESIDENT,
    count,
    describe_scorer,
    gathered,
    load_scorer,
    scorer_options,
)
from sgraf_deploy.cli.serve_options import (
    BatchOptions,
    ListenOptions,
    RequestOptions,
    batch_options,
    check_environment,
    listen_options,
    read_environment,
    request_options,
)
from sgraf_deploy.cli.serve_ray import check_source, ray_options, serve_on_ray
from sgraf_deploy.cli.terminal import echo

if TYPE_CHECKING:
    from sgraf_deploy.serve.server import Ended

INSTALL = "pip install 'sgraf-deploy[serve]'"
LEAVE: Callable[[int], Any] = os._exit
"""Ends a process whose engine hangs: nothing that waits for its thread would ever end."""


@click.command(
    short_help="Answer rerank requests over HTTP.",
    epilog="Each option is an environment variable as well: --max-wait-ms is "
    "SGRAF_DEPLOY_SERVE_MAX_WAIT_MS, and BUNDLE is SGRAF_DEPLOY_SERVE_BUNDLE. The command line "
    "goes before it. A list is separated by spaces, one of files by colons.",
)
@click.argument("bundle", type=BUNDLE_PATH, required=False)
@click.option(
    "--gallery",
    type=PATH,
    metavar="GALLERY",
    help="Gallery of the images that requests name, which `sgraf-deploy index` wrote. Needed, as "
    "BUNDLE is, unless --ray names them.",
)
@click.option(
    "--keys",
    type=PATH,
    metavar="FILE",
    help="File with the digests of the API keys, one a line: NAME, read or write, sha256:DIGEST. "
    "SIGHUP reads it again.",
)
@click.option(
    "--no-auth", is_flag=True, help="Let everyone in who reaches the address, to write as well."
)
@ray_options
@listen_options
@request_options
@batch_options
@RESIDENT
@scorer_options
@NO_PRUNE
@gathered(ListenOptions, "listening")
@gathered(RequestOptions, "requests")
@gathered(BatchOptions, "batches")
@click.pass_context
def serve(
    context: click.Context,
    /,
    *,
    bundle: Path | str | None,
    gallery: Path | None,
    keys: Path | None,
    no_auth: bool,
    ray_config: Path | None,
    allow_downtime: bool,
    stop: bool,
    resident: Any,
    listening: ListenOptions,
    requests: RequestOptions,
    batches: BatchOptions,
    **scorer_arguments: Any,
) -> None:
    """Answer rerank requests over HTTP, as stock rerank clients send them.

    A string that begins with image: names an image of the gallery. After SIGTERM, accepted requests
    are answered and the exit code is 0; it is 1 if some were not, or if the engine hangs.

    With --ray the command ends as soon as the cluster serves.
    """
    _check_packages()
    from sgraf_deploy.gallery.store import Gallery
    from sgraf_deploy.serve.keys import Keys
    from sgraf_deploy.serve.service import check_exposure, run_service

    check_environment(context.command, os.environ)
    settings, limits, options = requests.settings(), batches.limits(), listening.options()
    found = None if keys is None else Keys(keys)
    check_exposure(options.host, found, open_to_all=no_auth)
    check_source(ray_config, bundle, gallery, ray_flags=allow_downtime or stop)
    if ray_config is not None:
        serve_on_ray(
            ray_config,
            settings=settings,
            limits=limits,
            options=options,
            keys=found,
            resident=resident,
            scorer_arguments=scorer_arguments,
            allow_downtime=allow_downtime,
            stop=stop,
        )
    elif bundle is not None and gallery is not None:
        with (
            Gallery.open(gallery, resident=resident) as opened,
            load_scorer(bundle, **scorer_arguments) as scorer,
        ):
            echo(describe_scorer(scorer))
            echo(f"gallery {gallery}: {count(len(opened), 'image')}")
            _end(
                run_service(scorer, opened, settings, limits, options, keys=found, started=_started)
            )


def _end(ended: Ended) -> None:
    """Exit as the server ended."""
    if ended == "stuck":
        echo("Error: the engine hangs", err=True)
        LEAVE(1)
    if ended == "interrupted":
        raise KeyboardInterrupt
    if ended != "stopped":
        raise click.exceptions.Exit(1)


read_environment(serve)


def _started(url: str) -> None:
    echo(f"serving at {url}; SIGTERM or Ctrl-C ends it")


def _check_packages() -> None:
    """Raise UnavailableError where the web packages are missing."""
    from importlib.util import find_spec

    from sgraf_deploy.errors import UnavailableError

    names = ["litestar", "msgspec", "uvicorn", "httptools", "prometheus_client"]
    names += [] if sys.platform == "win32" else ["uvloop"]
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UnavailableError("serve: packages", got=f"no {', '.join(missing)}", hint=INSTALL)
