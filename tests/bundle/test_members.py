"""What the members of a bundle are called, and what they are together."""

from __future__ import annotations

from typing import Any

import pytest
from support.manifests import error_of
from support.refusals import place, refused
from support.small_bundle import manifest, member

from sgraf_deploy.bundle.manifest import Manifest
from sgraf_deploy.bundle.migrations import migrate
from sgraf_deploy.config import Module, ensemble_name, member_names
from sgraf_deploy.errors import BundleError

Json = Any

MODULES: dict[str, tuple[str, tuple[Module, ...]]] = {
    "sgr": ("SGR", ("SGR",)),
    "saf": ("SAF", ("SAF",)),
    "sgraf": ("SGRAF", ("SGR", "SAF")),
    "seeds": ("2×SGR", ("SGR", "SGR")),
    "three": ("2×SGR + SAF", ("SGR", "SGR", "SAF")),
    "mixed": ("2×SGR + 2×SAF", ("SAF", "SGR", "SAF", "SGR")),
    "six": ("SGR + 5×SAF", ("SAF", "SAF", "SGR", "SAF", "SAF", "SAF")),
}
"""What members of some modules make together."""


def ensemble(modules: tuple[Module, ...]) -> Json:
    """A manifest's JSON with members of these modules, as they must be called."""
    names = member_names(modules)
    return manifest(
        {name: member(module) for name, module in zip(names, modules, strict=True)}
    ).to_json()


@pytest.mark.parametrize(("module", "modules"), MODULES.values(), ids=MODULES)
def test_the_module_is_what_the_members_are(module: str, modules: tuple[Module, ...]) -> None:
    value = ensemble(modules)

    assert value["module"] == module
    assert Manifest.from_json(value).to_json() == value
    for other in ("SGR", "SAF", "SGRAF", "2×SGR", "ENSEMBLE"):
        if other != module:
            error = error_of({**value, "module": other}, expected=module, got=f'"{other}"')
            assert place(error) == "module"


def test_members_are_numbered_within_their_module() -> None:
    assert member_names(["SGR", "SAF", "SGR", "SGR", "SAF"]) == [
        *("sgr", "saf", "sgr-2", "sgr-3", "saf-2")
    ]
    assert ensemble_name(["saf", "sgr"]) == "sgraf"
    assert {ensemble_name(names) for names in (["sgr", "sgr-2"], ["sgr", "sgr-2", "saf"])} == {
        "ensemble"
    }


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ("sgr-2", "sgr-3", "members.sgr-2"),
        ("sgr-2", "sgr-1", "members.sgr-2"),
        ("sgr-2", "sgr-02", "members.sgr-2"),
        ("sgr-2", "other", "members.sgr-2"),
        ("sgr", "../sgr", "members.sgr"),
    ],
)
def test_a_member_must_be_called_what_it_is(old: str, new: str, missing: str) -> None:
    value = ensemble(("SGR", "SGR", "SAF"))
    value["members"][new] = value["members"].pop(old)

    assert place(error_of(value, expected=None, got=None)) == missing


def test_a_member_must_not_be_called_what_it_is_not() -> None:
    value = ensemble(("SGR", "SGR", "SAF"))
    value["members"]["saf-2"] = value["members"].pop("sgr")

    error = error_of(value, expected="SAF", got='"SGR"')
    assert place(error) == "members.saf-2.config.module"


def test_there_must_be_a_member() -> None:
    value = manifest().to_json()
    value["members"] = {}

    assert place(error_of(value, got="{}")) == "members"


def test_a_member_must_be_what_its_key_says() -> None:
    with refused(BundleError, expected="SGR", got='"SAF"') as found:
        manifest({"sgr": member("SAF")})
    assert place(found.error) == "members.sgr.config.module"


@pytest.mark.parametrize("name", ["vocab_size", "regions", "img_dim"])
def test_the_members_of_an_ensemble_must_share(name: str) -> None:
    changes: dict[str, Any] = {name: 9}
    members = {"sgr": member("SGR"), "sgr-2": member("SGR", **changes), "saf": member("SAF")}
    values = {key: getattr(made.config, name) for key, made in members.items()}
    with refused(BundleError, got=values) as found:
        manifest(members)
    assert place(found.error) == f"members.*.config.{name}"


def test_the_members_of_an_ensemble_must_share_a_precision() -> None:
    with refused(BundleError) as found:
        manifest({"sgr": member("SGR", ("fp16",)), "saf": member("SAF", ("fp32",))})
    assert place(found.error) == "members.*.graphs"


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_what_earlier_versions_wrote_lacks_what_later_ones_have(version: int) -> None:
    new = {**ensemble(("SGR", "SAF")), "extractor": None}
    old = {**new, "schema_version": version}
    later = [name for name, since in {"combined": 3, "explain": 4}.items() if version < since]
    assert [old.pop(name) for name in later] == [{}] * len(later)
    assert old.pop("extractor") is None

    assert migrate(old) == new
    assert old["schema_version"] == version
    assert not old.keys() & {*later, "extractor"}
