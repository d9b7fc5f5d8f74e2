"""The one golden file of everything that the program says when something is wrong."""

from __future__ import annotations

import pytest
from support import messages


def test_the_golden_file_is_up_to_date() -> None:
    found = messages.difference()
    if found:
        hint = "python tests/support/messages.py --write, and read what it changed"
        pytest.fail("\n".join([*found, hint]), pytrace=False)


def test_every_kind_of_error_is_found() -> None:
    kinds = messages.KINDS - {"SgrafDeployError", "CaptionWarning", "RegionsWarning"}
    text = messages.messages()
    assert {kind for kind in kinds if f" {kind}: " not in text} == set()
