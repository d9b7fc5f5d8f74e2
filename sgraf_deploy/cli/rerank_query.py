"""The query of `sgraf-deploy rerank`: its options, and how a caption is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import PATH, F, count, encoded_texts
from sgraf_deploy.cli.option_types import unicode_text
from sgraf_deploy.cli.photos import MAX_PIXELS_OPTION
from sgraf_deploy.config import MAX_PIXELS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sgraf_deploy.runtime.scorer import Scorer


@dataclass(frozen=True)
class Query:
    """What is asked: a caption, or an image: one that is named, its regions, or a photograph."""

    caption: str | None
    image: str | None
    regions: Path | None
    photo: Path | None
    max_pixels: int | None
    top_k: int

    @property
    def _all(self) -> dict[str, str | Path]:
        options = {
            "--caption": self.caption,
            "--image": self.image,
            "--regions": self.regions,
            "--photo": self.photo,
        }
        return {option: value for option, value in options.items() if value is not None}

    @property
    def option(self) -> str:
        """The option that gives the query, which `check` has found to be the only one."""
        return next(iter(self._all))

    @property
    def given(self) -> str | Path:
        """What that option gives."""
        return self._all[self.option]

    def check(self) -> None:
        """Raise InputError unless exactly one query is given, and for a caption of no word."""
        from sgraf_deploy.errors import InputError

        if len(self._all) != 1:
            expected = "one of --caption TEXT, --image, --regions FILE and --photo FILE"
            raise InputError("query", expected=expected, got=" and ".join(self._all) or "none")
        if self.caption is not None and not self.caption.strip():
            expected = "at least one word"
            raise InputError("--caption", expected=expected, got=repr(self.caption))


def query_options(command: F) -> F:
    """Add the options of a `Query`."""
    for option in (
        click.option(
            "--top-k",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            metavar="K",
            help="Number of best candidates to show.",
        ),
        click.option(
            "--regions",
            type=PATH,
            metavar="FILE.npy",
            help="Regions of the image to rank a gallery's captions for, an array (regions, "
            "img_dim) of float32 or float16.",
        ),
        MAX_PIXELS_OPTION,
        click.option(
            "--photo",
            type=PATH,
            metavar="FILE",
            help="Photograph to rank captions for; the bundle must have an extractor.",
        ),
        click.option(
            "--image",
            metavar="ID",
            help="Image to rank captions for: its name in the split, or its row there, counted "
            "from 0; or, for a gallery, its id in the gallery of --images.",
        ),
        click.option(
            "--caption",
            metavar="TEXT",
            callback=unicode_text,
            help="Caption to rank images for.",
        ),
    ):
        command = option(command)
    return command


def read_caption(scorer: Scorer, caption: str) -> tuple[NDArray[np.int32], str]:
    """The token ids of --caption, and the line that repeats it."""
    (token_ids,), words = encoded_texts(scorer, [caption])
    known = f"{words.unknown} of {count(words.tokens, 'word')} unknown"
    return token_ids, f"caption: {caption} ({known})"


def photo_regions(scorer: Scorer, query: Query) -> NDArray[np.float32]:
    """The regions (regions, img_dim) that the bundle's extractor finds in --photo."""
    from sgraf_deploy.features.photographs import extract_photos

    photos, most = [query.photo or Path()], query.max_pixels or MAX_PIXELS
    found = extract_photos(scorer.extractor, photos, max_pixels=most)
    regions: NDArray[np.float32] = found.features.regions[0]
    return regions
