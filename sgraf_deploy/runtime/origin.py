"""What embeddings were made by: a bundle, opened on an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sgraf_deploy.config import ModelConfig, Precision, TensorSpec
from sgraf_deploy.engines.base import Engine
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.encoding import Encoding, Kind

STORED: dict[Precision, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "fp8": np.dtype(np.float16),
}
"""The dtype in which a precision's graphs store embeddings."""


@dataclass(frozen=True, eq=False)
class Origin:
    """What embeddings were made by; another bundle or precision cannot use them."""

    bundle: str
    """The bundle's sha256."""
    configs: Mapping[str, ModelConfig]
    engine: Engine = field(repr=False)
    images: Encoding = field(repr=False)
    """What its encoded images are bound to."""
    captions: Encoding = field(repr=False)
    """What its encoded captions are bound to."""

    @property
    def precision(self) -> Precision:
        """The precision of the graphs that run."""
        return self.images.precision

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which embeddings are stored."""
        return STORED[self.precision]

    def image_dtypes(self, member: str, spec: TensorSpec) -> tuple[np.dtype[Any], ...]:
        """The dtypes that rows on the host may have, of an output of a member's image encoder."""
        dtype = np.dtype(spec.dtype)
        half = spec.name in self.engine.open(member, "scorer").also_float16
        return (dtype, np.dtype(np.float16)) if half and dtype != np.float16 else (dtype,)

    def check(self, other: Origin, what: Kind) -> None:
        """Raise InputError if images or captions of origin `other` are of no use here.

        They are on the device of the engine that encoded them; through the host
        (`Scorer.images_from_host`) they come to any scorer of the same encoding.
        """
        if what == "images":
            self.images.check(other.images, what)
        else:
            self.captions.check(other.captions, what)
        if self.engine is not other.engine:
            raise InputError(
                f"{what} were encoded by another scorer, though in the same way",
                hint=f"encode them again with this one, or use {what}_from_host",
            )
