"""The compiled scorer through ctypes; its interface is `scorer.h`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from ctypes import POINTER, Structure, byref, c_int32, c_int64, c_void_p, sizeof
from functools import cache
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.engines.native.instructions import SETS, VARIABLE, InstructionSets, named
from sgraf_deploy.engines.native.stages import Stages, no_time
from sgraf_deploy.engines.native.workspace import KEPT_WORDS
from sgraf_deploy.errors import UnavailableError

LIBRARY = Path(__file__).with_name("libsgraf_scorer.so")

INSTALL = (
    "install a C compiler, then "
    "pip install --force-reinstall --no-deps --no-binary sgraf-deploy sgraf-deploy"
)

MAX_STEPS = 16

_Floats = _Ints = c_void_p  # of arrays, whose addresses are numbers


class _Linear(Structure):
    _fields_ = (("weight", _Floats), ("bias", _Floats))


class _Model(Structure):
    _fields_ = (
        ("instructions", c_int32),
        ("regions", c_int32),
        ("embed", c_int32),
        ("sim_dim", c_int32),
        ("steps", c_int32),
        ("filtration_used", c_int32),
        ("local_alignment", _Linear),
        ("global_alignment", _Linear),
        ("key", _Linear * MAX_STEPS),
        ("update", _Linear * MAX_STEPS),
        ("filtration", _Linear),
        ("similarity", _Linear),
    )


class _Images(Structure):
    _fields_ = (
        *(("regions", c_void_p), ("image_global", c_void_p), ("gram", _Floats)),
        *(("half_regions", c_int32), ("half_global", c_int32)),
    )


class _Captions(Structure):
    _fields_ = (
        ("words", _Floats),
        ("offsets", _Ints),
        ("text_global", _Floats),
        ("lengths", _Ints),
        ("longest", c_int32),
    )


class _Pairs(Structure):
    _fields_ = (
        ("images", c_int32),
        ("captions", c_int32),
        ("image_index", _Ints),
        ("caption_index", _Ints),
        ("pairs", c_int64),
    )


_STRUCTURES = (_Model, _Images, _Captions, _Pairs, Stages)
"""What passes to the library, in the order of `sgraf_sizes`."""


@cache
def open_library(path: Path = LIBRARY) -> ctypes.CDLL:
    """The library; UnavailableError where it was not built, or cannot be loaded."""
    if not path.exists():
        raise UnavailableError("the package was built without a C compiler", hint=INSTALL)
    try:
        library = ctypes.CDLL(str(path))
        library.sgraf_built.restype = c_int32
        library.sgraf_runnable.restype = c_int32
        library.sgraf_pack.argtypes = (_Floats, c_int64, c_int64, _Floats)
        library.sgraf_pack.restype = c_int64
        library.sgraf_workspace.argtypes = (POINTER(_Model), c_int32)
        library.sgraf_workspace.restype = c_int64
        scored = (
            *(POINTER(_Model), POINTER(_Images), POINTER(_Captions), POINTER(_Pairs)),
            *(c_void_p, _Floats),
        )
        library.sgraf_score.argtypes = scored
        library.sgraf_score.restype = None
        library.sgraf_profile.argtypes = (*scored, POINTER(Stages))
        library.sgraf_profile.restype = None
        library.sgraf_nanoseconds.restype = c_int64
        sizes = (c_int32 * len(_STRUCTURES))()
        library.sgraf_sizes(sizes)
    except (OSError, AttributeError) as error:
        what = f"{path.name} cannot be loaded"
        raise UnavailableError(what, got=error, hint=INSTALL) from error
    expected = [sizeof(structure) for structure in _STRUCTURES]
    if list(sizes) != expected:
        raise UnavailableError(
            f"{path.name} was compiled for another version of the package",
            expected=f"structures of {expected} bytes",
            got=list(sizes),
            hint=INSTALL,
        )
    return library


def instruction_sets() -> InstructionSets:
    """What the library was built for and this processor runs; UnavailableError as above."""
    library = open_library()
    return InstructionSets(
        named(library.sgraf_built()),
        named(library.sgraf_runnable()),
        os.environ.get(VARIABLE) or None,
    )


class NativeModel:
    """One member's scorer: packed weights, and a workspace for each thread that scores."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, NDArray[np.float32]],
    ) -> None:
        """Pack the weights of a folded model, by the names that they have in its graphs.

        Raises UnavailableError where there is no library, or not the instruction set asked for.
        """
        self._library = open_library()
        self._kept: list[NDArray[np.float32]] = []
        self._own = local()
        model = _Model(
            SETS.index(instruction_sets().used),
            config.regions,
            config.embed,
            config.sim_dim,
            config.sgr_steps,
        )
        model.local_alignment = self._packed(weights, "local_alignment")
        model.global_alignment = self._packed(weights, "global_alignment")
        for step in range(config.sgr_steps):
            model.key[step] = self._packed(weights, f"reasoning.{step}.key")
            model.update[step] = self._packed(weights, f"reasoning.{step}.update")
        model.filtration_used = config.module == "SAF"
        if config.module == "SAF":
            model.filtration = self._plain(weights, "filtration.attention")
        model.similarity = self._plain(weights, "similarity")
        self._model = model

    def score(
        self,
        inputs: Mapping[str, NDArray[Any]],
        logits: NDArray[np.float32],
        stages: Stages | None = None,
    ) -> None:
        """Write the logits of a scorer's or a pair scorer's checked inputs.

        `word_embeddings` are (captions, words, embed), or without padding (words, embed) where
        `offsets` (captions,) says in which row each caption begins.
        Images' `region_embeddings` and `image_global` may be float16: the embeddings of a few
        images at a time are widened, and computed with as float32.

        The time that it takes is added to `stages`, where there are any.
        """
        gram = inputs.get("region_gram")
        embeddings = inputs["region_embeddings"], inputs["image_global"]
        images = _Images(
            *map(_address, embeddings),
            None if gram is None else _address(gram),
            *(array.dtype == np.float16 for array in embeddings),
        )
        words, lengths = inputs["word_embeddings"], inputs["lengths"]
        offsets = inputs.get("offsets")
        if offsets is None:
            longest = words.shape[1]
            offsets = np.arange(0, len(words) * longest, longest, dtype=np.int32)
        else:
            longest = int(lengths.max())
        texts = map(_address, (words, offsets, inputs["text_global"], lengths))
        captions = _Captions(*texts, longest)
        pairs = _Pairs(len(inputs["image_global"]), len(lengths), None, None, logits.size)
        if "image_index" in inputs:
            pairs.image_index = _address(inputs["image_index"])
            pairs.caption_index = _address(inputs["caption_index"])
        workspace = self._workspace(longest)
        arguments = (
            *(byref(self._model), byref(images), byref(captions), byref(pairs)),
            *(_address(workspace), _address(logits)),
        )
        if stages is None:
            self._library.sgraf_score(*arguments)
        else:
            self._library.sgraf_profile(*arguments, byref(stages))

    def no_time(self, clock: Callable[[], int] | None = None) -> Stages:
        """Stages for `score` to add to; see `stages.no_time`."""
        return no_time(self._library, clock)

    @property
    def kept_bytes(self) -> int:
        """What this thread's workspace takes between runs."""
        kept: NDArray[np.uint8] | None = getattr(self._own, "workspace", None)
        return 0 if kept is None else kept.nbytes

    def workspace_bytes(self, longest: int) -> int:
        """What scoring takes where the longest caption has so many words."""
        needed: int = self._library.sgraf_workspace(byref(self._model), longest)
        return needed

    def _workspace(self, longest: int) -> NDArray[np.uint8]:
        """This thread's workspace, or a larger one that nobody keeps."""
        needed = self.workspace_bytes(longest)
        if longest > KEPT_WORDS:
            return np.empty(needed, np.uint8)
        kept: NDArray[np.uint8] | None = getattr(self._own, "workspace", None)
        if kept is None:
            kept = np.empty(self.workspace_bytes(KEPT_WORDS), np.uint8)
            self._own.workspace = kept
        return kept[kept.nbytes - needed :]  # Up to the end of memory, which sanitizers guard.

    def _packed(self, weights: Mapping[str, NDArray[np.float32]], name: str) -> _Linear:
        weight = np.ascontiguousarray(weights[f"{name}.weight"], np.float32)
        inputs, outputs = weight.shape
        count = self._library.sgraf_pack(None, inputs, outputs, None)
        packed = np.empty(count, np.float32)
        self._library.sgraf_pack(_address(weight), inputs, outputs, _address(packed))
        bias = np.zeros(count // inputs, np.float32)
        bias[:outputs] = weights[f"{name}.bias"]
        return self._linear(packed, bias)

    def _plain(self, weights: Mapping[str, NDArray[np.float32]], name: str) -> _Linear:
        """A layer of one output."""
        parts = (weights[f"{name}.{part}"].astype(np.float32) for part in ("weight", "bias"))
        return self._linear(*(np.ascontiguousarray(part).reshape(-1) for part in parts))

    def _linear(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> _Linear:
        self._kept += [weight, bias]
        return _Linear(_address(weight), _address(bias))


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]  # in a third of the time of ctypes.data
    return address
