"""What an export is asked for beyond its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from sgraf_deploy.config import CAPTIONS_PER_IMAGE, DEFAULT_PRECISIONS, Precision
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.data.tokenizer import VOCABULARY
from sgraf_deploy.errors import InputError
from sgraf_deploy.export.opsets import check_opset


@dataclass(frozen=True)
class ExportOptions:
    """What an export does beyond the checkpoints.

    Without `vocabulary` the bundle works on token ids. `gate_data` is a precomp folder: the gate
    runs on a few of its images instead of synthetic regions, and R@K is measured on more of them.
    It needs the vocabulary, and FP8 needs it. None of its captions may be longer than
    `max_caption_words`, unless that is None. `key` is the name under which the checkpoints hold
    the model, if that is not `model`. `combined` asks for the graph of all members, too, and `card`
    for a model card in the bundle's folder. `opset` is the version of ONNX's operators, None for
    each precision's own. `extractor` is a SPEC of what makes regions of photographs, which the
    bundle then holds; one that differs from the recipe of the features of the training or of
    `gate_data` is refused without `allow_foreign_features`.

    Raises InputError for FP8 without `gate_data`, and for an opset that a precision lacks.
    """

    vocabulary: Path | None = None
    tokenizer: str = VOCABULARY
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    gate_data: Path | None = None
    gate_split: str | None = None
    captions_per_image: int = CAPTIONS_PER_IMAGE
    keep_reference: bool = True
    force: bool = False
    max_caption_words: int | None = MAX_WORDS
    key: str | None = None
    card: bool = False
    combined: bool = False
    opset: int | None = None
    extractor: str | None = None
    allow_foreign_features: bool = False

    def __post_init__(self) -> None:
        if self.opset is not None:
            check_opset(self.opset, self.precisions)
        if "fp8" in self.precisions and self.gate_data is None:
            raise InputError(
                "precision fp8", expected="--gate-data DIR, to compare R@K on", got="no real data"
            )


def default_target(checkpoints: Sequence[Path]) -> Path:
    """`NAME.sgraf` in the current folder, where NAME is what the checkpoints' names share."""
    names = [path.name.split(".")[0] for path in checkpoints]
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    shared = "".join(letters[0] for letters in same)
    if any(name[len(shared) : len(shared) + 1] not in ("", "_", "-") for name in names):
        shared = shared[: max(shared.rfind("_"), shared.rfind("-"), 0)]
    return Path(f"{shared.rstrip('_-') or 'sgraf'}.sgraf")
