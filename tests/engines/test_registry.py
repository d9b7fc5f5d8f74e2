"""The registry of engines: why one does not work here, said once and with what puts it right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.refusals import check_error, holds

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines import registry as engine
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.registry import ENGINES, EngineEntry, open_engine, unavailable
from sgraf_deploy.errors import UnavailableError


def entry(target: str) -> EngineEntry:
    return EngineEntry(target, "pip install everything", "tests")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register these engines and no others."""

    def register(**targets: str) -> None:
        monkeypatch.setattr(engine, "ENGINES", {name: entry(t) for name, t in targets.items()})

    return register


def refusing(monkeypatch: pytest.MonkeyPatch, error: Exception, *, on: str | None = None) -> None:
    """Let the fake engine refuse, on one device or on all."""

    def refuse(device: str) -> None:
        if on in (None, device):
            raise error

    monkeypatch.setattr("support.fake_engine.FakeEngine.check_available", staticmethod(refuse))


def test_a_package_that_is_missing_is_the_reason(only: Any) -> None:
    only(one="no_such_module_anywhere:Engine")
    error = unavailable("one")
    assert error is not None
    check_error(error, "no_such_module_anywhere", hint="pip install everything")


def test_an_engine_that_is_there_has_none(only: Any, bundle: Bundle) -> None:
    only(fake="support.fake_engine:FakeEngine")
    assert unavailable("fake") is None
    assert open_engine("fake", bundle, "fp32", EngineOptions()).name == "fake"


def test_an_engines_own_refusal_is_the_reason(only: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    only(one="support.fake_engine:FakeEngine")
    refusing(monkeypatch, UnavailableError("the driver is too old"))
    error = unavailable("one")
    assert error is not None
    assert (error.reason, error.hint) == ("the driver is too old", "pip install everything")
    refusing(monkeypatch, UnavailableError("the driver is too old", hint="upgrade it"))
    error = unavailable("one")
    assert error is not None
    assert error.hint == "upgrade it"


@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "cuda")])
def test_one_device_that_works_is_enough(
    only: Any, monkeypatch: pytest.MonkeyPatch, devices: Any
) -> None:
    only(one="support.fake_engine:FakeEngine")
    made = EngineEntry("support.fake_engine:FakeEngine", "none", "tests", devices=devices)
    monkeypatch.setitem(engine.ENGINES, "one", made)
    refusing(monkeypatch, UnavailableError("no GPU"), on="cuda:0")
    assert unavailable("one") is None
    assert unavailable("one", "cpu") is None
    error = unavailable("one", "cuda")
    assert error is not None
    assert error.reason == "no GPU"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('libgomp.so.1: cannot open')", "libgomp.so.1: cannot open"),
        ("raise ImportError('undefined symbol')", "undefined symbol"),
        ("import no_such_package_at_all", "no_such_package_at_all"),
    ],
    ids=["library", "symbol", "package"],
)
def test_what_an_import_raises_is_the_reason(
    only: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    (tmp_path / "broken_engine.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    only(one="broken_engine:Engine")
    error = unavailable("one")
    assert error is not None
    assert holds(error.reason, reason)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_raises_nothing_else_and_never_names_itself(name: str) -> None:
    for kind in ENGINES[name].devices:
        error = unavailable(name, kind)
        assert error is None or (error.hint and f"engine {name}" not in error.reason)


@pytest.mark.parametrize("name", ENGINES)
def test_every_entry_says_where_and_what_it_runs(name: str) -> None:
    entry = ENGINES[name]
    assert entry.devices
    assert entry.precisions
    assert set(entry.by_name) < set(entry.precisions)
