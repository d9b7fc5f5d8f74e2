"""A bundle's model card: YAML that the Hub reads, and Markdown that people read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cards.body import body_lines
from sgraf_deploy.cards.metadata import front_lines
from sgraf_deploy.cards.reports import EvalReport, Gate
from sgraf_deploy.errors import BundleError, InputError

_LICENCE = re.compile(r"[a-z0-9](?:[a-z0-9.+-]{0,60}[a-z0-9+])?")
_DATASET = re.compile(r"(?:[\w.-]{1,96}/)?[\w.-]{1,96}", re.ASCII)


@dataclass(frozen=True)
class CardOptions:
    """What a bundle cannot know of itself: its licence, and the dataset that it was evaluated on.

    `licence` is an identifier of the Hub's, such as `apache-2.0`, and `dataset` a dataset's name
    there. Raises InputError for what is neither.
    """

    licence: str | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        for option, value, known, example in (
            ("--license", self.licence, _LICENCE, "apache-2.0"),
            ("--dataset", self.dataset, _DATASET, "OWNER/NAME"),
        ):
            if value is not None and known.fullmatch(value) is None:
                expected = f"an identifier of the Hub's, such as {example}"
                raise InputError(option, expected=expected, got=repr(value))


def card_text(
    bundle: Bundle,
    name: str,
    evaluations: Sequence[EvalReport] = (),
    options: CardOptions = CardOptions(),
) -> str:
    """The card of a bundle that is called `name`, with its evaluations in the order given.

    Raises BundleError for a parity report that cannot be read.
    """
    try:
        gate = Gate.of(bundle.manifest.parity)
    except InputError as error:
        place = f"the parity report of bundle {bundle.path}"
        raise BundleError(
            f"{place}: {error.what}", expected=error.expected, got=error.got
        ) from error
    front = front_lines(name, gate, evaluations, licence=options.licence, dataset=options.dataset)
    return "\n".join([*front, "", *body_lines(name, bundle, gate, evaluations), "", ""])
