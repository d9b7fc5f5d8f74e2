"""Run by the oldest ONNX Runtime's Python, which has nothing but that and numpy.

    python run_oldest.py FOLDER

Runs each GRAPH.onnx in a folder on GRAPH.npz beside it, into GRAPH.out.npz; prints the version.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

for graph in sorted(Path(sys.argv[1]).glob("*.onnx")):
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    with np.load(graph.with_suffix(".npz")) as arrays:
        outputs = session.run(names, dict(arrays))
    np.savez(graph.with_suffix(".out.npz"), **dict(zip(names, outputs, strict=True)))
sys.stdout.write(onnxruntime.__version__)
