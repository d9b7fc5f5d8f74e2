"""The thresholds of a matrix's ranks, computed once before its tiles are shared out."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from sgraf_deploy.engines.ensemble import Logits
from sgraf_deploy.engines.ranks import Thresholds
from sgraf_deploy.errors import InputError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.runtime.part import Execution, check_same
from sgraf_deploy.runtime.part_file import contents_of, read_arrays, write_arrays
from sgraf_deploy.schema import encode

_WHAT = "rank thresholds"


@dataclass(frozen=True)
class _Header:
    """Describes a file of thresholds: the ground truths' logits by model."""

    format: Literal[1]
    kind: Literal["rank thresholds"]
    execution: Execution
    captions_per_image: int
    slack: float
    models: tuple[str, ...]
    contents: str


@dataclass(frozen=True, eq=False, repr=False)
class RankThresholds:
    """The ground truths' logits, which candidates are compared with, and what computed them.

    `Scorer.rank_thresholds` makes them, and `Scorer.count_tiles` takes them. What is counted
    against others has no part in the same ranks.

    Example:
        >>> thresholds = scorer.rank_thresholds(images[:2], captions, captions_per_image=1)
        >>> thresholds
        RankThresholds(2 images, 2 captions, native, fp32)
        >>> thresholds.save("thresholds.npz")
        >>> sgraf_deploy.RankThresholds.load("thresholds.npz").digest == thresholds.digest
        True
    """

    execution: Execution
    values: Thresholds

    @property
    def images(self) -> int:
        """The number of images."""
        return len(next(iter(self.values.images.values())))

    @property
    def captions(self) -> int:
        """The number of captions."""
        return len(next(iter(self.values.captions.values())))

    @property
    def models(self) -> tuple[str, ...]:
        """The members, and last their ensemble if there are several."""
        return tuple(self.values.captions)

    @cached_property
    def digest(self) -> str:
        """What identifies them: a sha256 in hexadecimal digits."""
        return hashlib.sha256(json.dumps(encode(self._header), sort_keys=True).encode()).hexdigest()

    def save(self, path: PathLike) -> None:
        """Write them to one file, whole or not at all; InputError where it cannot be written."""
        write_arrays(path, _WHAT, self._header, self.values.captions)

    @classmethod
    def load(cls, path: PathLike) -> RankThresholds:
        """Read what `save` wrote; DataError for a file that is missing, damaged or another."""
        header, filed = read_arrays(path, _WHAT, _Header)
        number, per_image = None, header.captions_per_image
        truths: dict[str, Logits] = {}
        for model in header.models:
            truths[model] = filed.take(model, np.float32, (number,))
            number = len(truths[model])
            if not number or per_image < 1 or number % per_image:
                raise filed.wrong(model, f"{per_image} captions of each image", f"{number}")
            if not np.isfinite(truths[model]).all():
                raise filed.wrong(model, "finite numbers", "another")
        filed.end()
        if not truths or not math.isfinite(header.slack) or header.slack < 0:
            raise filed.wrong("models, slack", "at least one model, and a slack from 0 on", "less")
        return make_thresholds(header.execution, truths, per_image, header.slack)

    @staticmethod
    def concatenate(parts: Sequence[RankThresholds]) -> RankThresholds:
        """Join the thresholds of parts of the images, each with its captions, in their order.

        Raises:
            InputError: no part, or parts of another bundle, engine, precision or number of captions
                per image.

        Example:
            >>> halves = [scorer.rank_thresholds(images[i], captions[i], 1) for i in range(2)]
            >>> sgraf_deploy.RankThresholds.concatenate(halves)
            RankThresholds(2 images, 2 captions, native, fp32)
        """
        if not parts:
            raise InputError("thresholds to join", expected="at least one", got="none")
        first, what = parts[0], "thresholds to join"
        for part in parts:
            check_same(what, first.execution, part.execution, "compute them with one scorer")
            expected, got = (each.values.captions_per_image for each in (first, part))
            if expected != got:
                raise InputError(f"{what}: captions_per_image", expected=expected, got=got)
        truths = {
            model: np.concatenate([part.values.captions[model] for part in parts])
            for model in first.models
        }
        values = first.values
        return make_thresholds(first.execution, truths, values.captions_per_image, values.slack)

    def __repr__(self) -> str:
        sizes = f"{self.images:,} images, {self.captions:,} captions"
        return f"RankThresholds({sizes}, {self.execution.engine}, {self.execution.executed})"

    @cached_property
    def _header(self) -> _Header:
        values = self.values
        return _Header(
            1,
            "rank thresholds",
            self.execution,
            values.captions_per_image,
            values.slack,
            self.models,
            contents_of(values.captions),
        )


def make_thresholds(
    execution: Execution, truths: dict[str, Logits], captions_per_image: int, slack: float
) -> RankThresholds:
    """The thresholds of ground truths' logits (captions,) by model."""
    best = {name: each.reshape(-1, captions_per_image).max(axis=1) for name, each in truths.items()}
    return RankThresholds(execution, Thresholds(best, truths, captions_per_image, slack))
