"""What schemathesis has to know beside the description: regions that are finite numbers."""

from __future__ import annotations

import base64
import struct
from typing import Any

import schemathesis
from hypothesis import strategies

_VALUES = 4 * 6
"""Of an image of the small model that `server.py` serves."""


def encoded(code: str, width: int) -> strategies.SearchStrategy[str]:
    """Regions as they are sent, of numbers of so many bits."""
    numbers = strategies.floats(-100, 100, width=width)  # type: ignore[arg-type]
    return strategies.lists(numbers, min_size=_VALUES, max_size=_VALUES).map(
        lambda values: base64.b64encode(struct.pack(f"<{_VALUES}{code}", *values)).decode()
    )


schemathesis.openapi.format("regions-float16", encoded("e", 16))
schemathesis.openapi.format("regions-float32", encoded("f", 32))


@schemathesis.check  # type: ignore[untyped-decorator]
def no_traceback(ctx: object, response: Any, case: object) -> None:
    """No answer shows where in the code something went wrong."""
    assert "Traceback" not in response.text
    assert ".py" not in response.text
