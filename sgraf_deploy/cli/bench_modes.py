"""Which options of `sgraf-deploy bench` its modes know."""

from __future__ import annotations

import click
from click.core import ParameterSource

_MODES = {
    "scaling": frozenset(
        {
            "profile",
            "data",
            "split",
            "limit_images",
            "captions_per_image",
            "max_caption_words",
            "images",
            "captions",
            "warmup",
            "queries",
        }
    ),
    "profile": frozenset(
        {
            "scaling",
            "data",
            "split",
            "limit_images",
            "captions_per_image",
            "max_caption_words",
            "precision",
            "repeats",
            "warmup",
            "queries",
        }
        | {"device", "checkpoints", "sizes", "max_pairs", "plot"}
    ),
}
"""Mode -> the options that mean nothing to it."""

_SCALING_ALONE = ("sizes", "max_pairs", "plot")


def check_mode(context: click.Context) -> None:
    """Refuse options that the chosen mode does not know; InputError names the first."""
    from sgraf_deploy.errors import InputError

    given = {
        str(option.name): option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    }
    for mode, refused in _MODES.items():
        wrong = [flag for name, flag in given.items() if name in refused]
        if mode in given and wrong:
            raise InputError(f"--{mode}", expected=f"no {wrong[0]} beside it")
    alone = [given[name] for name in _SCALING_ALONE if name in given]
    if alone and "scaling" not in given:
        raise InputError(alone[0], expected="--scaling beside it", got="none")
    _check_engines(context, given)


def _check_engines(context: click.Context, given: dict[str, str]) -> None:
    """One engine at a time for --scaling; `ort` alone for --profile."""
    from sgraf_deploy.errors import InputError

    engines = context.params["engines"]
    if "scaling" in given and len(engines) > 1:
        raise InputError("--scaling", expected="one --engine", got=" and ".join(engines))
    if "profile" in given and set(engines) - {"ort"}:
        raise InputError("--profile", expected="--engine ort", got=" and ".join(engines))
