"""The registry of engines: what is asked for is opened, or the error says what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.errors import InputError, UnavailableError
from sgraf_deploy.runtime import engine
from sgraf_deploy.runtime.engine import (
    AUTO_ORDER,
    ENGINES,
    EngineEntry,
    EngineOptions,
    choose_engine,
    open_engine,
    unavailable_reason,
)


def entry(target: str) -> EngineEntry:
    return EngineEntry(target, "pip install everything", "tests")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register these engines and no others, and let `auto` try them in order."""

    def register(**targets: str) -> None:
        monkeypatch.setattr(engine, "ENGINES", {name: entry(t) for name, t in targets.items()})
        monkeypatch.setattr(engine, "AUTO_ORDER", tuple(targets))

    return register


def test_every_name_that_auto_tries_is_registered() -> None:
    assert set(AUTO_ORDER) <= set(ENGINES)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module_anywhere:Engine", "Python cannot import no_such_module_anywhere"),
        ("fake_engine:FakeEngine", None),
    ],
    ids=["missing", "there"],
)
def test_the_reason_names_what_is_missing(only: Any, target: str, reason: str | None) -> None:
    only(one=target)
    assert unavailable_reason("one") == reason


def test_an_engines_own_refusal_is_the_reason(only: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise UnavailableError("the driver is too old")

    monkeypatch.setattr("fake_engine.FakeEngine.unavailable", staticmethod(refuse))
    only(one="fake_engine:FakeEngine")
    assert unavailable_reason("one") == "the driver is too old"


def test_a_library_that_cannot_be_loaded_is_the_reason(
    only: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> str:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("fake_engine.FakeEngine.unavailable", staticmethod(load))
    only(one="fake_engine:FakeEngine")
    assert unavailable_reason("one") == "libgomp.so.1: cannot open shared object file"


def test_auto_takes_the_first_that_is_there(only: Any, bundle: Bundle) -> None:
    only(gone="no_such_module_anywhere:Engine", fake="fake_engine:FakeEngine")
    assert choose_engine() == "fake"
    assert open_engine("auto", bundle, "fp32", EngineOptions()).name == "fake"


def test_auto_says_how_to_get_one(only: Any, bundle: Bundle) -> None:
    only(gone="no_such_module_anywhere:Engine")
    with pytest.raises(
        UnavailableError, match="no engine is available that runs fp32; pip install everything"
    ):
        open_engine("auto", bundle, "fp32", EngineOptions())


def test_an_engine_asked_for_by_name_is_not_replaced(only: Any, bundle: Bundle) -> None:
    only(gone="no_such_module_anywhere:Engine", fake="fake_engine:FakeEngine")
    message = "engine gone is not available: Python cannot import .*; pip install everything"
    with pytest.raises(UnavailableError, match=message):
        open_engine("gone", bundle, "fp32", EngineOptions())


def test_an_unknown_name_lists_the_known(bundle: Bundle) -> None:
    with pytest.raises(
        InputError, match=r"engine: expected \['auto', 'native', 'ort', .*got turbo"
    ):
        open_engine("turbo", bundle, "fp32", EngineOptions())
