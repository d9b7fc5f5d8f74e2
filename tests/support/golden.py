"""The shared golden cases, and the engines that are held to them."""

from __future__ import annotations

CASES = (
    "saf",
    "saf-legacy-file",
    "saf-unnormalised",
    "sgr",
    "sgr-1-step-2-layers",
    "sgr-unidirectional",
)
ENGINES = ("native", "ort", "torch", "torch-reference")
