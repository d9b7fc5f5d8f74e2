"""What the commands that read photographs share: which, and what becomes of unreadable ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgraf_deploy.cli.common import PATH, F
from sgraf_deploy.cli.terminal import warn
from sgraf_deploy.config import MAX_PIXELS, MOST_PIXELS

if TYPE_CHECKING:
    from sgraf_deploy.errors import DataError
    from sgraf_deploy.features.photographs import Skipped, Unread
    from sgraf_deploy.gallery.indexing import Items
    from sgraf_deploy.runtime.scorer import Scorer

SKIPPED = 3
"""The exit code where photographs were left out, and the others taken."""

_SHOWN = 10

PHOTOS = click.option(
    "--photos",
    type=PATH,
    metavar="DIR",
    help="Take photographs, those in folders below DIR included, in place of --data and --split; "
    "the bundle must have an extractor. An id is a file's path below DIR; boxes and sizes are kept "
    "with the images.",
)

MAX_PIXELS_OPTION = click.option(
    "--max-pixels",
    type=click.IntRange(1, MOST_PIXELS),
    metavar="N",
    help=f"A photograph of more pixels counts as one that cannot be read. Default: {MAX_PIXELS}; "
    f"at most {MOST_PIXELS}, Pillow's own limit.",
)


def on_error_option(skipping: str, stopping: str, *, beside: str | None = None) -> Callable[[F], F]:
    """A decorator that adds --on-error: what the program does, by its values `skip` and `stop`.

    It goes with the option `beside`; None is given where it was left out, and counts as `skip`.
    """
    more = "" if beside is None else f" Only with {beside}. Default: skip."
    return click.option(
        "--on-error",
        type=click.Choice(["skip", "stop"]),
        default="skip" if beside is None else None,
        show_default=beside is None,
        help=f"For a photograph that cannot be read: skip leaves it out, names it{skipping} and "
        f"ends with exit code {SKIPPED}; stop ends with exit code 2, and {stopping}.{more}",
    )


def check_beside(options: Mapping[str, object], beside: str, given: object) -> None:
    """Raise InputError for options, by name, that were given without what they go with."""
    from sgraf_deploy.errors import InputError

    for option, value in options.items():
        if value is not None and given is None:
            raise InputError(option, expected=f"{beside} together with it", got=value)


class LeftOut:
    """Collects the photographs that cannot be read, unless the first one is to stop the command.

    Those of more than `max_pixels` are such.
    """

    def __init__(self, on_error: str | None, max_pixels: int | None) -> None:
        """Take the values of --on-error and --max-pixels; None for one that was not given."""
        self._stops = on_error == "stop"
        self.max_pixels = max_pixels or MAX_PIXELS
        self.skipped: list[Skipped] = []
        self.rows: set[int] = set()

    def of(self, ids: Sequence[str]) -> Unread | None:
        """What notes an unreadable one of photographs with these ids; None to raise its error."""
        from sgraf_deploy.features.photographs import Skipped

        def note(row: int, reason: DataError) -> None:
            self.rows.add(row)
            self.skipped.append(Skipped.of(ids[row], reason))

        return None if self._stops else note

    def end(self) -> None:
        """Say which were left out, and end the command with `SKIPPED` if there are any."""
        tell_skipped(self.skipped)
        end_if_skipped(self.skipped)


def tell_skipped(skipped: Sequence[Skipped], named_in: Path | None = None) -> None:
    """Warn of photographs that were left out, the first ones by name; a file may name all."""
    for one in skipped[:_SHOWN]:
        warn(f"skipped {one.id}: {one.reason}")
    if len(skipped) > _SHOWN:
        where = "" if named_in is None else f", which {named_in} names"
        warn(f"skipped {len(skipped) - _SHOWN:,} more{where}")


def end_if_skipped(skipped: Sequence[Skipped]) -> None:
    """End the command with `SKIPPED` if photographs were left out."""
    if skipped:
        raise click.exceptions.Exit(SKIPPED)


def photo_items(scorer: Scorer, folder: Path, limit: int | None, left_out: LeftOut) -> Items:
    """The photographs of a folder, the first `limit` of them, as a gallery takes them."""
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.features.paths import find_photos
    from sgraf_deploy.gallery.indexing import PhotoImages

    photos = find_photos([folder]).photos
    if limit is not None and not 1 <= limit <= len(photos):
        expected = f"1 … {len(photos)}, the number of photographs in {folder}"
        raise InputError("--limit-images", expected=expected, got=limit)
    photos = photos[:limit]
    unread = left_out.of([photo.id for photo in photos])
    return PhotoImages(scorer, photos, unread, left_out.max_pixels)
