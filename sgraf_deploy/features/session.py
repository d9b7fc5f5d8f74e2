"""Models of ONNX Runtime on the CPU, run by a fixed number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.onnx_runtime import import_onnxruntime, import_state
from sgraf_deploy.engines.ort import PROVIDER, session_options, translated
from sgraf_deploy.errors import InputError
from sgraf_deploy.features.models import MODEL_HINT, Model


class Session:
    """A model opened in ONNX Runtime on the CPU; threads may share it.

    It is run on one input at a time, by a number of threads that does not change, so that equal
    inputs give equal bytes. Outputs are float32.
    """

    def __init__(self, model: Model, threads: int = 1) -> None:
        """Open a model; InputError if ONNX Runtime refuses it."""
        onnxruntime, native = import_onnxruntime(), import_state()
        self.name = model.name
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model.content, session_options(threads, arena=True), providers=[PROVIDER]
            )
        except (
            native.Fail,
            native.InvalidArgument,
            native.InvalidGraph,
            native.InvalidProtobuf,
            native.NoModel,
            native.NotImplemented,
            native.RuntimeException,
        ) as error:
            raise InputError(
                f"ONNX Runtime {onnxruntime.__version__} cannot open {model.name}",
                got=error,
                hint=MODEL_HINT,
            ) from error

    def run(
        self, name: str, numbers: NDArray[np.float32], outputs: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Run on one input; InputError where the model refuses it, or an output is not float32."""
        with translated(self.name):
            found = self._session.run(list(outputs), {name: numbers})
        for output, array in zip(outputs, found, strict=True):
            if array.dtype != np.float32:
                what = f"output {output} of {self.name}"
                raise InputError(what, expected="float32", got=array.dtype, hint=MODEL_HINT)
            if not np.isfinite(array).all():
                raise InputError(
                    f"output {output} of {self.name}", expected="finite numbers", got="others"
                )
        return list(found)

    def close(self) -> None:
        """Release the model."""
        self._session = None
