"""Which engine `load` takes, by its name with a precision, and what it says of that."""

from __future__ import annotations

from typing import Any

import pytest

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.native.instructions import VARIABLE
from sgraf_deploy.runtime import load


@pytest.mark.parametrize("precision", [None, "fp32"])
def test_an_engine_may_name_its_precision(bundle: Bundle, precision: Any) -> None:
    with load(bundle, "ort:fp32", precision) as scorer:
        assert (scorer.engine_name, scorer.executed) == ("ort", "fp32")


def test_auto_says_that_it_does_not_take_the_engine_that_a_variable_is_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "sse9")
    with load(bundle) as scorer:
        assert scorer.engine_name == "ort"
    (told,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert VARIABLE in told.getMessage()
    caplog.clear()
    with load(bundle, "ort"):
        assert not caplog.records
