"""`CudaDriver` through the real cuda-bindings, on a driver that is a few pages of C.

What it shows is how arguments are handed over: a wrong kind or order of them fails in the C. It
runs in a process of its own, which finds this driver before any other.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fake_libcuda.c")

BEGIN = """
import ctypes, gc
import numpy as np
from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.runtime.cuda import bindings
from sgraf_deploy.runtime.cuda.api import RankTile
from sgraf_deploy.runtime.cuda.engine import CudaEngine

# NVRTC looks for the driver, too, and asks it more than it knows.
bindings.compile_kernels = lambda compute_capability: b"\\x7fELF" + bytes(64)
fake = ctypes.CDLL("libcuda.so.1")
fake.fake_live.restype = ctypes.c_long
cuda = bindings.open_cuda()
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    if importlib.util.find_spec("cuda") is None:
        pytest.skip("needs cuda-bindings")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)],
        check=True,
        capture_output=True,
    )
    return folder


def run(driver: Path, body: str) -> str:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver)}
    command = [sys.executable, "-X", "faulthandler", "-c", BEGIN + body]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_names_the_gpu_and_its_memory(driver: Path) -> None:
    body = "print(cuda.name, cuda.compute_capability, *cuda.memory(), sep='|')"
    assert run(driver, body) == f"Fake H100|9.0|{2**20}|{2**20}"


def test_rows_are_put_gathered_and_fetched(driver: Path) -> None:
    body = """
engine = CudaEngine(cuda, "cuda:0")
for dtype, width in (("float32", 6), ("float16", 8), ("float16", 3)):
    array = np.arange(10 * width).reshape(10, width).astype(dtype)
    rows = np.array([[3, 1], [9, 0]], np.int32)
    buffer = engine.put(array)
    print((engine.fetch(engine.gather(buffer, rows)) == array[rows]).all(), end=" ")
    print((engine.fetch(buffer.rows(slice(2, 5))) == array[2:5]).all(), end=" ")
print(fake.fake_launches())
"""
    assert run(driver, body) == "True True True True True True 3"


def test_what_counts_ranks_gets_its_arguments(driver: Path) -> None:
    """The fake writes what arrived: whether the first member's logit is 1.5, and the sizes."""
    body = """
engine = CudaEngine(cuda, "cuda:0")
counts, logits = engine.put(np.zeros(8, np.int32)), engine.put(np.full(1, 1.5, np.float32))
lane = engine.lane()
with lane:
    members = lane.put(np.array([logits.pointer], np.uint64))
    tile = RankTile(members.pointer, 1, 0, 0, 0, counts.pointer, 0, 0, 11, 12, 13, 14, 15, 16)
    cuda.count_ranks(tile, lane.stream)
print(engine.fetch(counts).tolist())
"""
    assert run(driver, body) == "[1, 1, 11, 12, 13, 14, 15, 16]"


def test_too_little_memory_is_told_apart(driver: Path) -> None:
    body = """
engine = CudaEngine(cuda, "cuda:0")
try:
    engine.empty((2**20,), np.dtype(np.float32))
except EngineMemoryError as error:
    print(error)
"""
    assert run(driver, body) == "Fake H100 is out of memory: got cuMemAlloc"


def test_graphs_and_events(driver: Path) -> None:
    body = """
stream, event = cuda.create_stream(), cuda.create_event()
cuda.begin_capture(stream)
graph = cuda.end_capture(stream)
cuda.launch(graph, stream)
cuda.record(event, stream)
cuda.wait(stream, event)
cuda.synchronize(event)
print(cuda.passed(event))
cuda.destroy_graph(graph), cuda.destroy_event(event), cuda.destroy_stream(stream)
print(fake.fake_live())  # the context and the module
"""
    assert run(driver, body) == "True\n2"


def test_nothing_is_left(driver: Path) -> None:
    body = """
engine = CudaEngine(cuda, "cuda:0")
buffer = engine.put(np.zeros((100, 7), np.float32))
engine.fetch(engine.gather(buffer, np.array([1, 2], np.int32)))
engine.close()
del engine, buffer, cuda
gc.collect()
print(fake.fake_live())
"""
    assert run(driver, body) == "0"
