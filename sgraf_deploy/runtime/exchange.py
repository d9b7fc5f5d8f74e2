"""The part of a scorer that gives and takes what is encoded: rows on the host, and files."""

from __future__ import annotations

import os
from pathlib import Path

from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import host_rows, saved_encodings
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages, name_of
from sgraf_deploy.runtime.host_rows import HostRows
from sgraf_deploy.runtime.opened import OpenedBundle
from sgraf_deploy.runtime.saved_encodings import SavedRows
from sgraf_deploy.runtime.tokens import Lengths


class Exchange(OpenedBundle):
    """The part of a `Scorer` that gives and takes what is encoded."""

    def images_from_host(self, arrays: HostRows) -> EncodedImages:
        """Make encoded images of rows that a scorer of the same `image_encoding` encoded.

        `arrays` holds, by member and name, what `EncodedImages.to_host` gives: `region_embeddings`
        (images, regions, embed), `image_global` (images, embed) and, where the bundle's graphs take
        it, `region_gram` (images, regions, regions). An engine on the host keeps contiguous arrays
        themselves, so do not write to them. Whether the rows are of this encoding is for the caller
        to know: compare the `image_encoding` that they were stored with.

        Raises:
            DataError: a member or an array that is missing or too many, another shape or dtype.

        Example:
            >>> again = scorer.images_from_host(images.to_host())
            >>> bool((scorer.score(again, captions) == scorer.score(images, captions)).all())
            True
        """
        self._check_usable()
        return host_rows.images_from_host(self._context.origin, arrays)

    def captions_from_host(self, lengths: Lengths, arrays: HostRows) -> EncodedCaptions:
        """Make encoded captions of rows that a scorer of the same `text_encoding` encoded.

        `lengths` (captions,) integers count each caption's words, `<start>` and `<end>` included.
        `arrays` holds, by member and name, what `EncodedCaptions.to_host` gives: `word_embeddings`
        (all words, embed) and `text_global` (captions, embed).

        Raises:
            DataError: a length below 1, and as `images_from_host`.

        Example:
            >>> again = scorer.captions_from_host(captions.lengths, captions.to_host())
            >>> len(again), again.nbytes == captions.nbytes
            (2, True)
        """
        self._check_usable()
        return host_rows.captions_from_host(self._context.origin, lengths, arrays)

    def save_encoded(
        self, encoded: EncodedImages | EncodedCaptions, path: str | os.PathLike[str]
    ) -> Path:
        """Write encoded images or captions to one `.npz` file, whole or not at all.

        Deprecated, with a DeprecationWarning: `sgraf-deploy index` keeps galleries on disk, and its
        `--from-npz FILE` imports such a file. Returns the file's path. What it holds can be loaded
        by a scorer of the same encoders in the same precision, on any engine.

        Raises:
            InputError: another scorer encoded them, or they are not encoded; or the file cannot be
                written.

        Example:
            >>> scorer.save_encoded(images, "gallery.npz").name
            'gallery.npz'
        """
        saved_encodings.warn_deprecated("save_encoded")
        self._check_usable()
        given: object = encoded
        if not isinstance(given, EncodedImages | EncodedCaptions):
            kind = type(given).__name__
            raise InputError("what to save", expected="encoded images or captions", got=kind)
        self._context.origin.check(encoded.origin, name_of(encoded))
        return saved_encodings.save_gallery(encoded, path)

    def load_images(self, path: str | os.PathLike[str]) -> EncodedImages:
        """Read encoded images that `save_encoded` wrote; deprecated as that is.

        Raises:
            DataError: the file is damaged, holds captions, or other image encoders or another
                precision made it.

        Example:
            >>> path = scorer.save_encoded(images, "gallery.npz")
            >>> scorer.load_images(path)
            EncodedImages(6 images, fp32, 15 kB on cpu)
        """
        saved_encodings.warn_deprecated("load_images")
        self._check_usable()
        return saved_encodings.load_images(self._context.origin, path)

    def load_captions(self, path: str | os.PathLike[str]) -> EncodedCaptions:
        """Read encoded captions that `save_encoded` wrote; deprecated as that is.

        Raises:
            DataError: the file is damaged, holds images, or other text encoders or another
                precision made it.

        Example:
            >>> path = scorer.save_encoded(captions, "captions.npz")
            >>> len(scorer.load_captions(path))
            2
        """
        saved_encodings.warn_deprecated("load_captions")
        self._check_usable()
        return saved_encodings.load_captions(self._context.origin, path)

    def read_saved(self, path: str | os.PathLike[str]) -> SavedRows:
        """Read the rows in a file that `save_encoded` wrote, to move them to a gallery.

        The rows stay on the host. Their `encoding` says what encoded them, which may be another
        engine; `images_from_host` and `captions_from_host` take its `arrays`.

        Raises:
            DataError: the file is damaged, or other encoders or another precision made it.

        Example:
            >>> saved = scorer.read_saved(scorer.save_encoded(images, "gallery.npz"))
            >>> saved.encoding == images.encoding, sorted(saved.arrays)
            (True, ['saf', 'sgr'])
        """
        self._check_usable()
        return saved_encodings.read_saved(self._context.origin, path)
