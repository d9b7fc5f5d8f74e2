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
from support.refusals import holds

SOURCE = Path(__file__).parents[2] / "support" / "fake_libcuda.c"

BEGIN = """
import ctypes, gc
import numpy as np
from sgraf_deploy.errors import DeviceError, EngineMemoryError
from sgraf_deploy.engines.cuda import bindings
from sgraf_deploy.engines.cuda.api import RankTile
from sgraf_deploy.engines.cuda.arrays import GpuArrays
from sgraf_deploy.engines.cuda.memory import Mark

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
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_it_names_the_gpu_and_its_memory(driver: Path) -> None:
    body = "print(cuda.name, cuda.compute_capability, *cuda.memory(), sep='|')"
    assert run(driver, body) == f"Fake H100|9.0|{2**20}|{2**20}"


def test_rows_are_put_gathered_and_fetched(driver: Path) -> None:
    body = """
engine = GpuArrays(cuda, "cuda:0")
for dtype, width in (("float32", 6), ("float16", 8), ("float16", 3)):
    array = np.arange(10 * width).reshape(10, width).astype(dtype)
    rows = np.array([[3, 1], [9, 0]], np.int32)
    buffer = engine.put(array)
    print((engine.fetch(engine.gather(buffer, rows)) == array[rows]).all(), end=" ")
    print((engine.fetch(buffer.rows(slice(2, 5))) == array[2:5]).all(), end=" ")
print(fake.fake_launches())
"""
    assert run(driver, body) == "True True True True True True 3"


def test_rows_of_a_buffer_are_filled(driver: Path) -> None:
    body = """
engine = GpuArrays(cuda, "cuda:0")
array = np.arange(60).reshape(10, 6).astype(np.float32)
buffer = engine.put(array)
before = engine.gather(buffer, np.array([2, 3, 9], np.int32))
engine.fill(buffer.rows(slice(2, 4)), array[:2] + 100)
print(engine.fetch(before)[:, 0].tolist(), engine.fetch(buffer)[:5, 0].tolist())
"""
    assert run(driver, body) == "[12.0, 18.0, 54.0] [0.0, 6.0, 100.0, 106.0, 24.0]"


def test_what_counts_ranks_gets_its_arguments(driver: Path) -> None:
    """The fake writes what arrived: whether the first member's logit is 1.5, and the sizes."""
    body = """
engine = GpuArrays(cuda, "cuda:0")
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
engine = GpuArrays(cuda, "cuda:0")
try:
    engine.empty((2**20,), np.dtype(np.float32))
except EngineMemoryError as error:
    print("Fake H100" in error.what, error.got)
"""
    assert run(driver, body) == "True cuMemAlloc"


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
engine = GpuArrays(cuda, "cuda:0")
buffer = engine.put(np.zeros((100, 7), np.float32))
engine.fetch(engine.gather(buffer, np.array([1, 2], np.int32)))
engine.close()
del engine, buffer, cuda
gc.collect()
print(fake.fake_live())
"""
    assert run(driver, body) == "0"


@pytest.mark.parametrize(
    ("fails", "kind"),
    [
        ("cuStreamBeginCapture", "DeviceError"),
        ("cuStreamEndCapture", "DeviceError"),
        ("cuGraphInstantiate", "EngineMemoryError"),
    ],
)
def test_a_capture_that_fails_leaves_nothing_and_a_stream_that_works(
    driver: Path, fails: str, kind: str
) -> None:
    body = f"""
stream = cuda.create_stream()
before = fake.fake_live()
fake.fake_fail(b"{fails}")
try:
    cuda.begin_capture(stream)
    cuda.end_capture(stream)
except (DeviceError, EngineMemoryError) as error:
    print(type(error).__name__, error.reason)
print(fake.fake_live() - before, fake.fake_capturing())
cuda.begin_capture(stream)
cuda.destroy_graph(cuda.end_capture(stream))
print(fake.fake_live() - before)
"""
    first, *rest = run(driver, body).splitlines()
    assert first.split()[0] == kind
    assert holds(first, fails)
    assert rest == ["0 0", "0"]


@pytest.mark.parametrize("invalid", [True, False])
def test_a_capture_is_abandoned_whatever_became_of_it(driver: Path, invalid: bool) -> None:
    body = f"""
stream, event = cuda.create_stream(), cuda.create_event()
before = fake.fake_live()
cuda.begin_capture(stream)
try:
    {"cuda.synchronize(event)" if invalid else "pass"}
except DeviceError as error:
    print(error.got)
cuda.abandon_capture(stream)
print(fake.fake_live() - before, fake.fake_capturing())
"""
    unsupported = ["CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"] if invalid else []
    assert run(driver, body).splitlines() == [*unsupported, "0 0"]


MAKE = """
class Everything:
    def __init__(self, cuda, first):
        names = ["cuda", "engine", "mark", "array", "graph"]
        for name in names[first:] + names[:first]:
            setattr(self, name, None)  # The order of its members.
        self.cuda, self.engine = cuda, GpuArrays(cuda, "cuda:0")
        self.array = self.engine.put(np.zeros((100, 7), np.float32))
        stream = self.engine.lane().stream
        self.mark = Mark(cuda, self.engine.lane(), stream)
        cuda.begin_capture(stream)
        self.graph = cuda.end_capture(stream)
        self.circle = cuda.circle = self
"""
"""All kinds of things that are made on a GPU, in a circle."""


def test_the_end_of_the_interpreter_is_quiet_with_everything_open(driver: Path) -> None:
    """`run` asserts that Python says nothing; the driver counts after the interpreter is gone."""
    body = f"""{MAKE}
fake.fake_report_at_exit()
everything = [Everything(bindings.open_cuda(), first) for first in range(5)] + [cuda]
cuda.everything = everything
"""
    assert run(driver, body) == "left: 0"


@pytest.mark.parametrize("first", range(5))
def test_garbage_is_collected_in_any_order(driver: Path, first: int) -> None:
    body = f"""{MAKE}
gc.disable()
everything = Everything(cuda, {first})
del everything, cuda
gc.collect()
print(fake.fake_live())
"""
    assert run(driver, body) == "0"


def test_closing_after_the_gpu_was_let_go_of_is_quiet(driver: Path) -> None:
    """As a `__del__` may that runs late at the end of the interpreter."""
    body = """
engine = GpuArrays(cuda, "cuda:0")
buffer = engine.put(np.zeros((100, 7), np.float32))
engine.fetch(buffer)
cuda._resources.release()
print(fake.fake_live())
engine.close()
try:
    cuda.allocate(1)
except DeviceError as error:
    print(error.what)
"""
    first, second = run(driver, body).splitlines()
    assert first == "0"
    assert holds(second, "cuMemAlloc")


def test_a_mark_that_could_not_be_made_is_dropped_quietly(driver: Path) -> None:
    body = """
stream = cuda.create_stream()
fake.fake_fail(b"cuEventCreate")
try:
    Mark(cuda, None, stream)
except EngineMemoryError as error:
    print(error.got)
"""
    assert run(driver, body) == "cuEventCreate"


def test_the_child_of_a_fork_leaves_the_gpu_alone(driver: Path) -> None:
    body = f"""{MAKE}
import os
everything = Everything(cuda, 0)
before = fake.fake_live()
child = os.fork()
if not child:
    del everything, cuda
    gc.collect()
    print(fake.fake_live() == before, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(fake.fake_live() == before)
"""
    assert run(driver, body).split() == ["True", "True"]
