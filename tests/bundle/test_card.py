"""The card in a bundle's folder: no part of the bundle, and the user's once it was edited."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.refusals import naming, refused
from support.small_bundle import fill, manifest

from sgraf_deploy.bundle.bundle import Bundle, staged_bundle
from sgraf_deploy.bundle.card import CARD, is_unedited, write_card
from sgraf_deploy.errors import BundleError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "small.sgraf"
    folder.mkdir()
    fill(folder, manifest(content="old"))
    return folder


def edit(folder: Path) -> None:
    path = folder / CARD
    path.write_text("Mine.\n" + path.read_text())


def replace(folder: Path) -> None:
    with staged_bundle(folder, force=True) as staged:
        fill(staged, manifest(content="new"))


def test_a_card_changes_nothing_of_the_bundle(bundle: Path) -> None:
    before = Bundle.open(bundle)
    path = write_card(bundle, "# It")
    assert path == bundle / "README.md"
    assert Bundle.open(bundle).sha256 == before.sha256
    edit(bundle)
    assert Bundle.open(bundle).verify_files() == ()


def test_a_card_as_it_was_written_is_replaced(bundle: Path) -> None:
    write_card(bundle, "# It")
    text = write_card(bundle, "# It, again").read_text()
    assert text.startswith("# It, again\n")
    replace(bundle)
    assert Bundle.open(bundle).manifest.tools["content"] == "new"
    assert not (bundle / CARD).exists()


def test_an_edited_card_is_replaced_with_force_alone(bundle: Path) -> None:
    edited = write_card(bundle, "# It")
    edit(bundle)
    before = edited.read_bytes()
    with refused(BundleError, bundle / CARD, hint="--force"):
        write_card(bundle, "# It, again")
    assert edited.read_bytes() == before
    write_card(bundle, "# It, again", force=True)
    assert is_unedited(edited)


@pytest.mark.parametrize("sealed", [True, False], ids=["edited", "of another program"])
def test_a_bundle_with_the_users_card_is_not_replaced(bundle: Path, sealed: bool) -> None:
    if sealed:
        write_card(bundle, "# It")
        edit(bundle)
    else:
        (bundle / CARD).write_text("# Mine\n")
    before = (bundle / CARD).read_bytes()
    with refused(BundleError, bundle, got=naming(CARD)):
        replace(bundle)
    assert (bundle / CARD).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\n", b"<!-- sgraf-deploy card, sha256 -->\n", b"\xff"])
def test_what_is_no_card_of_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CARD).write_bytes(content)
    assert not is_unedited(tmp_path / CARD)


def test_what_cannot_be_read_is_refused(bundle: Path) -> None:
    (bundle / CARD).mkdir()
    with refused(BundleError, bundle / CARD):
        write_card(bundle, "# It")
