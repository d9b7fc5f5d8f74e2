"""A split as what a gallery is filled with, and the gallery that takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgraf_deploy.data.captions import read_captions
from sgraf_deploy.data.checks import check_captions, region_findings
from sgraf_deploy.data.findings import Tell
from sgraf_deploy.data.precomp import PrecompSplit, open_images
from sgraf_deploy.data.regions import check_regions
from sgraf_deploy.data.split_files import CAPTIONS, find_split
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import InputError
from sgraf_deploy.gallery.header import DEFAULT_MAX_SIZE, encoding_of
from sgraf_deploy.gallery.indexing import Items, SplitCaptions, SplitImages
from sgraf_deploy.gallery.splits import SplitDetails, given_ids, image_ids
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.encoding import Kind
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.runtime.tokens import bundle_tokenizer


@dataclass(frozen=True)
class SplitToIndex:
    """A split's images or captions; it can be sent to other processes."""

    folder: Path
    name: str
    kind: Kind
    captions_per_image: int
    limit_images: int | None = None
    caption_ids: Path | None = None
    """A file of the captions' ids, one a line; None for the numbers of their lines, from 1."""

    def absolute(self) -> SplitToIndex:
        """The same, by paths that are valid in any folder."""
        ids = None if self.caption_ids is None else self.caption_ids.absolute()
        return replace(self, folder=self.folder.absolute(), caption_ids=ids)

    def open(self, scorer: Scorer, tell: Tell | None) -> Items:
        """What the split has, checked; `tell` is told what is suspicious.

        Regions are read once for that, unless `tell` is None, where somebody has checked them.
        Raises DataError for a split that cannot be indexed.
        """
        return self._images(scorer, tell) if self.kind == "images" else self._texts(scorer, tell)

    def _images(self, scorer: Scorer, tell: Tell | None) -> Items:
        whole = self._opened(scorer, None)
        details = SplitDetails.open(self.folder, whole)
        limit = self.limit_images
        chosen = whole if limit is None else self._opened(scorer, limit)
        ids = image_ids(self.folder, chosen)
        if tell is not None:
            manifest = scorer.bundle.manifest
            for finding in chosen.findings:
                tell(finding)
            sizes, what = (manifest.regions, manifest.img_dim), f"regions of split {self.name}"
            survey = check_regions(chosen.regions, *sizes, what)
            for finding in region_findings(survey, manifest.region_statistics):
                tell(finding)
        return SplitImages(scorer, ids, chosen.regions, details)

    def _opened(self, scorer: Scorer, limit: int | None) -> PrecompSplit:
        manifest = scorer.bundle.manifest
        return open_images(
            self.folder,
            self.name,
            captions_per_image=self.captions_per_image,
            model=(manifest.regions, manifest.img_dim),
            limit_images=limit,
        )

    def _texts(self, scorer: Scorer, tell: Tell | None) -> Items:
        (file,) = find_split(self.folder, self.name, (CAPTIONS,), None)
        texts = read_captions(file)
        ids = given_ids(self.caption_ids, len(texts), "caption ids", first=1)
        if self.limit_images is not None:
            end = self.limit_images * self.captions_per_image
            texts, ids = texts[:end], ids[:end]
        vocabulary = Vocabulary.load(scorer.bundle.vocabulary_path())
        tokenizer = bundle_tokenizer(scorer.bundle, vocabulary, scorer.max_words)
        token_ids, _, findings = check_captions(texts, tokenizer, vocabulary)
        if tell is not None:
            for finding in findings:
                tell(finding)
        return SplitCaptions(scorer, ids, texts, token_ids)


def open_or_create(
    path: Path, scorer: Scorer, kind: Kind, dtype: Any, max_size: int | None
) -> Gallery:
    """The gallery at a path, which is made if it is not there; or InputError if it is another."""
    if not path.exists():
        size = max_size or DEFAULT_MAX_SIZE
        return Gallery.create(path, scorer, kind, dtype=dtype or "stored", max_size=size)
    gallery = Gallery.open(path)
    header = gallery.header
    encoding_of(scorer, kind).check(header.encoding, f"gallery {path}")
    for option, given, fixed in (
        ("--dtype", dtype, header.dtype),
        ("--max-size", max_size, header.max_size),
    ):
        if given not in (None, fixed):
            hint = "it is chosen when a gallery is made: leave it out, or make another gallery"
            raise InputError(f"{option} of gallery {path}", expected=fixed, got=given, hint=hint)
    return gallery
