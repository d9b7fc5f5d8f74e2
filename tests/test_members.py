"""What the members of a bundle are called, and what they are together."""

from __future__ import annotations

from typing import Any

import pytest
from small_bundle import manifest, member

from sgraf_deploy.config import Module, ensemble_name, member_names
from sgraf_deploy.errors import BundleError
from sgraf_deploy.manifest import Manifest, migrate

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


def refused(value: Json) -> str:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(value)
    return str(caught.value)


@pytest.mark.parametrize(("module", "modules"), MODULES.values(), ids=MODULES)
def test_the_module_is_what_the_members_are(module: str, modules: tuple[Module, ...]) -> None:
    value = ensemble(modules)

    assert value["module"] == module
    assert Manifest.from_json(value).to_json() == value
    for other in ("SGR", "SAF", "SGRAF", "2×SGR", "ENSEMBLE"):
        if other != module:
            assert refused({**value, "module": other}).startswith(f"module: expected {module}, got")


def test_members_are_numbered_within_their_module() -> None:
    assert member_names(["SGR", "SAF", "SGR", "SGR", "SAF"]) == [
        *("sgr", "saf", "sgr-2", "sgr-3", "saf-2")
    ]
    assert ensemble_name(["saf", "sgr"]) == "sgraf"
    assert {ensemble_name(names) for names in (["sgr", "sgr-2"], ["sgr", "sgr-2", "saf"])} == {
        "ensemble"
    }


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("sgr-2", "sgr-3", "members.sgr-2: missing field"),
        ("sgr-2", "sgr-1", "members.sgr-2: missing field"),
        ("sgr-2", "sgr-02", "members.sgr-2: missing field"),
        ("sgr-2", "other", "members.sgr-2: missing field"),
        ("sgr", "../sgr", "members.sgr: missing field"),
        ("sgr", "saf-2", 'members.saf-2.config.module: expected SAF, got "SGR"'),
    ],
)
def test_a_member_must_be_called_what_it_is(old: str, new: str, says: str) -> None:
    value = ensemble(("SGR", "SGR", "SAF"))
    value["members"][new] = value["members"].pop(old)

    assert refused(value).startswith(says)


def test_there_must_be_a_member() -> None:
    value = manifest().to_json()
    value["members"] = {}

    assert refused(value).startswith("members: expected at least one")


def test_a_member_must_be_what_its_key_says() -> None:
    with pytest.raises(
        BundleError, match=r"members\.sgr\.config\.module: expected SGR, got \"SAF\""
    ):
        manifest({"sgr": member("SAF")})


@pytest.mark.parametrize("name", ["vocab_size", "regions", "img_dim"])
def test_the_members_of_an_ensemble_must_share(name: str) -> None:
    changes: dict[str, Any] = {name: 9}
    members = {"sgr": member("SGR"), "sgr-2": member("SGR", **changes), "saf": member("SAF")}
    with pytest.raises(BundleError, match=rf"^members\.\*\.config\.{name}: .*'sgr-2': 9"):
        manifest(members)


def test_the_members_of_an_ensemble_must_share_a_precision() -> None:
    with pytest.raises(BundleError, match="precision that every member has"):
        manifest({"sgr": member("SGR", ("fp16",)), "saf": member("SAF", ("fp32",))})


def test_what_version_1_wrote_is_a_version_2_as_it_stands() -> None:
    new = ensemble(("SGR", "SAF"))
    old = {**new, "schema_version": 1}

    assert migrate(old) == new
    assert old["schema_version"] == 1
