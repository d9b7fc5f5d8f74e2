"""The images and captions that engines and the literal loop are compared on, and the comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import readable
from sgraf_deploy.evaluation.evaluate import by_model, check_for
from sgraf_deploy.evaluation.parity import Parity, compare
from sgraf_deploy.evaluation.recall import Ranks, RecallReport, rank_matrix, row_blocks
from sgraf_deploy.progress import Progress, Stage
from sgraf_deploy.runtime.scorer import Scorer

LITERAL = "literal loop"
"""The reference's name beside the engines' labels."""


class Reference(Protocol):
    """The literal loop: see `engines.torch.literal.LiteralLoop`, which needs PyTorch."""

    @property
    def inexact(self) -> str | None:
        """Why its values cannot be the reference; None if it has computed in float32 so far."""

    def encode_images(self, regions: NDArray[Any]) -> Any:
        """Encode regions (images, regions, img_dim)."""

    def encode_captions(self, token_ids: Sequence[NDArray[np.int32]]) -> Any:
        """Encode the token ids (words,) of each caption."""

    def logits(
        self, images: Any, captions: Any, progress: Progress | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits (images, captions) by member."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Regions (images, regions, img_dim) and token ids (words,) of each caption."""

    regions: NDArray[Any]
    token_ids: Sequence[NDArray[np.int32]]

    @property
    def pairs(self) -> int:
        """Images x captions."""
        return len(self.regions) * len(self.token_ids)

    @property
    def mean_words(self) -> float:
        """Tokens per caption, `<start>` and `<end>` included."""
        return float(np.mean([len(ids) for ids in self.token_ids]))


@dataclass(frozen=True)
class DataIdentity:
    """What tells one workload's data from another's, whatever files they come from.

    `split` and `captions_per_image` are None for random inputs. `regions_sha256` is that of the
    regions' values as they are stored, `captions_sha256` that of the captions' texts, of which
    there are none for random token ids: theirs is that of the ids.
    """

    split: str | None
    images: int
    captions: int
    captions_per_image: int | None
    regions_sha256: str
    captions_sha256: str


@dataclass(frozen=True, eq=False)
class Workload:
    """Images and captions to compare on; `captions_per_image` is None without ground truth."""

    name: str
    inputs: Inputs
    captions_per_image: int | None = None
    seed: int | None = None
    findings: tuple[Finding, ...] = ()
    split: str | None = None
    texts: Sequence[str] | None = None
    """The captions as they were before they became token ids."""

    @cached_property
    def identity(self) -> DataIdentity:
        """The hashes of the data, which are read whole for it."""
        captions = (
            (ids.astype("<i4").tobytes() for ids in self.inputs.token_ids)
            if self.texts is None
            else (text.encode() for text in self.texts)
        )
        return DataIdentity(
            split=self.split,
            images=len(self.inputs.regions),
            captions=len(self.inputs.token_ids),
            captions_per_image=self.captions_per_image,
            regions_sha256=_hash_regions(self.inputs.regions),
            captions_sha256=_hash_parts(captions),
        )

    @property
    def warnings(self) -> list[str]:
        """The messages of the warnings about the data."""
        return [finding.message for finding in self.findings if finding.is_warning]

    def timed_part(self, most: int) -> Inputs:
        """At most `most` images, the first ones, and as many captions, spread over all."""
        regions = readable(self.inputs.regions[:most])
        count = len(self.inputs.token_ids)
        rows = np.linspace(0, count - 1, min(count, most)).astype(int)
        return Inputs(regions, [self.inputs.token_ids[row] for row in rows.tolist()])


def split_workload(
    bundle: Bundle, split: PrecompSplit, max_words: int | None = MAX_WORDS
) -> Workload:
    """A split's images and captions, none of these longer than `max_words`.

    Raises BundleError for a bundle without a vocabulary, DataError for regions that do not fit.
    """
    checked = check_for(bundle, split, max_words)
    name = f"split {split.name}: {split.images:,} images × {len(checked.token_ids):,} captions"
    return Workload(
        name,
        Inputs(split.regions, checked.token_ids),
        split.captions_per_image,
        findings=checked.findings,
        split=split.name,
        texts=split.captions,
    )


@dataclass(frozen=True, eq=False)
class Compared:
    """What the reference and the scorers made of a workload.

    `reference` is the reference's R@K by model and `parity` every scorer's by its label. `ranks`
    are by model, and then by label: the reference's first, as LITERAL. Without ground truth R@K is
    None, and there are no ranks.
    """

    reference: dict[str, RecallReport | None]
    parity: dict[str, list[Parity]]
    ranks: dict[str, dict[str, Ranks]]


def compare_scorers(
    literal: Reference, scorers: dict[str, Scorer], workload: Workload, stage: Stage
) -> Compared:
    """Score a workload by the reference and by every scorer."""
    inputs, per_image = workload.inputs, workload.captions_per_image
    images = literal.encode_images(inputs.regions)
    captions = literal.encode_captions(inputs.token_ids)
    expected = by_model(literal.logits(images, captions, stage(LITERAL)))
    ranks: dict[str, dict[str, Ranks]] = {}
    if per_image is not None:
        for model, logits in expected.items():
            ranks[model] = {LITERAL: rank_matrix(logits, per_image)}
    reference = {
        model: RecallReport.of(ranks[model][LITERAL]) if ranks else None for model in expected
    }
    found = {}
    for label, scorer in scorers.items():
        encoded = scorer.encode_images(inputs.regions), scorer.encode_captions(inputs.token_ids)
        matrices = by_model(scorer.logits(*encoded, progress=stage(label)))
        found[label] = [
            compare(
                model,
                expected[model],
                logits,
                precision=scorer.precision,
                captions_per_image=per_image,
            )
            for model, logits in matrices.items()
        ]
        for parity in found[label]:
            if parity.ranked is not None:
                ranks[parity.model][label] = parity.ranked
    return Compared(reference, found, ranks)


def by_reference(reference: dict[str, RecallReport | None]) -> dict[str, RecallReport]:
    """R@K of the models that have it: on a split, where the ground truth is known."""
    return {model: report for model, report in reference.items() if report is not None}


def _hash_regions(regions: NDArray[Any]) -> str:
    """The sha256 of an array's dtype, shape and values, read some images at a time."""
    rows, columns = len(regions), int(np.prod(regions.shape[1:]))
    blocks = (np.ascontiguousarray(regions[part]).tobytes() for part in row_blocks(rows, columns))
    return _hash_parts([f"{regions.dtype.str} {regions.shape}".encode()], blocks)


def _hash_parts(*parts: Iterable[bytes]) -> str:
    """The sha256 of several byte strings in turn, and of where each ends."""
    digest = sha256()
    for part in chain(*parts):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
