"""`sgraf-deploy serve --ray`: the same service on a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgraf_deploy.cli.common import PATH, F, count
from sgraf_deploy.cli.terminal import echo
from sgraf_deploy.errors import InputError

if TYPE_CHECKING:
    from sgraf_deploy.distributed.replica import ScorerSpec
    from sgraf_deploy.serve.keys import Keys
    from sgraf_deploy.serve.queue import BatchLimits
    from sgraf_deploy.serve.server import ServerOptions
    from sgraf_deploy.serve.settings import Settings


def ray_options(command: F) -> F:
    """Add the options that concern Ray alone."""
    for option in (
        click.option("--stop", is_flag=True, help="With --ray: end what serves on the cluster."),
        click.option(
            "--allow-downtime",
            is_flag=True,
            help="With --ray: take fewer than two replicas or fronts. An update stops one before "
            "the next one starts, and the loss of one loses what it was asked.",
        ),
        click.option(
            "--ray",
            "ray_config",
            type=PATH,
            metavar="CONFIG",
            help="Serve on a Ray cluster what this file in YAML says: bundle and galleries, in "
            "place of BUNDLE and --gallery, and how many replicas of each. Run it again to replace "
            "what serves, without a failed request.",
        ),
    ):
        command = option(command)
    return command


def check_source(
    ray_config: Path | None,
    bundle: Path | str | None,
    gallery: Path | None,
    *,
    ray_flags: bool,
) -> None:
    """Refuse a bundle and a gallery that are named twice, or not at all.

    Raises:
        InputError: with --ray they are named; without it, they or --ray's own options are not fit.
        click.MissingParameter: there is no --ray either.
    """
    if ray_config is not None:
        if bundle is not None or gallery is not None:
            expected = "neither with --ray, whose file names them"
            raise InputError("BUNDLE and --gallery", expected=expected, got="one of them")
        return
    if ray_flags:
        raise InputError("--allow-downtime and --stop", expected="--ray with them", got="none")
    for name, kind, value in (("BUNDLE", "argument", bundle), ("--gallery", "option", gallery)):
        if value is None:
            raise click.MissingParameter(param_hint=f"'{name}'", param_type=kind)


def serve_on_ray(
    path: Path,
    *,
    settings: Settings,
    limits: BatchLimits,
    options: ServerOptions,
    keys: Keys | None,
    resident: Any,
    scorer_arguments: dict[str, Any],
    allow_downtime: bool,
    stop: bool,
) -> None:
    """Serve on a cluster what a file says, or end that; returns once it serves."""
    from sgraf_deploy.distributed.cluster import check_installed, connected

    check_installed()
    from sgraf_deploy.distributed import online
    from sgraf_deploy.distributed.config import read_config
    from sgraf_deploy.serve.service import check_queue

    config = read_config(path)
    config.check_replicas(allow_downtime=allow_downtime)
    _check_options(options, scorer_arguments)
    check_queue(limits, settings)
    spec = _spec(config.bundle, config.cpus, limits, options, resident, scorer_arguments)
    with connected(config.address, guarded=True):
        if stop:
            online.stop()
            echo("nothing serves on the cluster any more")
            return
        url = online.deploy(online.Online(config, spec, settings, options, keys))
    shards, replicas = count(len(config.galleries), "shard"), count(config.replicas, "replica")
    echo(f"serving at {url}: {shards} of {replicas}, {count(config.fronts, 'front')}")


def _check_options(options: ServerOptions, scorer_arguments: dict[str, Any]) -> None:
    """Refuse options that mean nothing on Ray."""
    if options.port == 0:
        raise InputError("--port", expected="a port of its own with --ray", got=0)
    if options.drain_delay_s:
        raise InputError("--drain-delay-s", expected="none with --ray", got=options.drain_delay_s)
    if scorer_arguments["threads"] is not None:
        expected = "`cpus` in the file of --ray, which are a replica's threads"
        raise InputError("--threads", expected=expected, got=scorer_arguments["threads"])


def _spec(
    bundle: str,
    cpus: int,
    limits: BatchLimits,
    options: ServerOptions,
    resident: Any,
    given: dict[str, Any],
) -> ScorerSpec:
    """How replicas load the bundle."""
    from sgraf_deploy.distributed.replica import ScorerSpec
    from sgraf_deploy.engines.base import EngineOptions

    engine = EngineOptions(
        cpus,
        given["device"],
        tuple(given["checkpoints"]),
        given["engine_dir"],
        given["allow_unverified"],
    )
    spec = ScorerSpec(bundle, given["engine"], given["precision"], engine)
    return replace(
        spec,
        max_words=given["max_caption_words"],
        resident=resident,
        limits=limits,
        watchdog_s=options.watchdog_s,
        prune=not given["no_prune"],
    )
