"""What callers set in PyTorch for speed is off inside, and theirs again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
import torch
from support.small_models import SGR
from torch import _C

from sgraf_deploy.config import signature
from sgraf_deploy.engines.torch.engine import TorchGraph
from sgraf_deploy.model.exact import GENERAL, OPERATIONS, exact_arithmetic, exactly, observe

Settings = Callable[[], None]

DEFAULTS = {("cuda", "conv"): "tf32", ("cuda", "rnn"): "tf32"}


def precision(value: str, *names: str) -> None:
    """Through the newer interface."""
    for name in names:
        backend, operation = name.split(".")
        _C._set_fp32_precision_setter(backend, operation, value)


def old_switches(*, cudnn: bool = True, matmul: str = "highest") -> None:
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.set_float32_matmul_precision(matmul)


def inherited() -> None:
    precision("none", "cuda.conv", "cuda.rnn")
    precision("tf32", "generic.all")


def mixed() -> None:
    old_switches(matmul="high")
    precision("ieee", "cuda.matmul", "cuda.rnn")


def mixed_with_inherited() -> None:
    old_switches(cudnn=False, matmul="medium")
    precision("none", "cuda.matmul", "mkldnn.matmul")
    precision("tf32", "generic.all", "cuda.conv")


CALLERS: dict[str, Settings] = {
    "nothing": lambda: None,
    "cudnn-off": lambda: setattr(torch.backends.cudnn, "enabled", False),
    "old-cudnn-exact": lambda: old_switches(cudnn=False),
    "old-matmul": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "old-high": lambda: old_switches(matmul="high"),
    "old-medium": lambda: old_switches(cudnn=False, matmul="medium"),
    "new-tf32": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "new-bf16": lambda: setattr(torch.backends, "fp32_precision", "bf16"),
    "new-exact": lambda: setattr(torch.backends, "fp32_precision", "ieee"),
    "new-cuda": lambda: precision("tf32", "cuda.all"),
    "new-mkldnn": lambda: precision("bf16", "mkldnn.all"),
    "new-operations": lambda: precision("ieee", "cuda.rnn", "cuda.conv", "cuda.matmul"),
    "new-one": lambda: precision("ieee", "cuda.rnn"),
    "new-inherited": inherited,
    "mixed": mixed,
    "mixed-with-inherited": mixed_with_inherited,
    "halves": lambda: setattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", True),
}


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    """Leave PyTorch as it starts."""
    yield
    old_switches()
    for setting in (*GENERAL, *OPERATIONS):
        precision(DEFAULTS.get(setting, "none"), ".".join(setting))
    torch.backends.cuda.matmul.allow_fp16_accumulation = False
    torch.backends.cudnn.enabled = True


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> None:
    """A caller's settings, through either interface or both."""
    CALLERS[request.param]()


def old_interface() -> list[object]:
    """What the older switches say: a value, or that they cannot."""
    found: list[object] = []
    for ask in (
        _C._get_cudnn_allow_tf32,
        _C._get_cublas_allow_tf32,
        torch.get_float32_matmul_precision,
    ):
        try:
            found.append(ask())
        except RuntimeError:
            found.append(RuntimeError)
    return found


def state() -> dict[str, Any]:
    """Everything that a caller can read, and every setting as it is stored.

    A setting reads as a more general one's where it has none of its own: these are taken away, one
    after the other, and put back.
    """
    settings = (*GENERAL, *OPERATIONS)
    found: dict[str, Any] = {"old": old_interface()}
    found["read"] = [_C._get_fp32_precision_getter(*each) for each in settings]
    matmul = torch.backends.cuda.matmul
    found["halves"] = (
        matmul.allow_fp16_accumulation,
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_fp16_reduced_precision_reduction_split_k,
    )
    found["cudnn"] = torch.backends.cudnn.enabled
    stored: list[str] = []
    for setting in GENERAL:
        stored.append(_C._get_fp32_precision_getter(*setting))
        precision("none", ".".join(setting))
    found["stored"] = [_C._get_fp32_precision_getter(*each) for each in OPERATIONS]
    for setting, value in zip(GENERAL, stored, strict=True):
        precision(value, ".".join(setting))
    return found | {"general": stored}


def assert_exact() -> None:
    assert observe().below_float32 == ()
    assert old_interface() == [False, False, "highest"]
    matmul = torch.backends.cuda.matmul
    assert not matmul.allow_fp16_accumulation
    assert not matmul.allow_fp16_reduced_precision_reduction


@pytest.mark.usefixtures("caller")
def test_inside_everything_is_exact_and_afterwards_as_it_was() -> None:
    before = state()
    with exact_arithmetic():
        assert_exact()
        assert torch.backends.cudnn.enabled is before["cudnn"]
        with exact_arithmetic():
            assert_exact()
        assert_exact()
    assert state() == before


def test_what_a_caller_turns_on_is_seen() -> None:
    """`observe` finds what there is to find, or the rest of these tests says nothing."""
    precision("tf32", "cuda.matmul")
    precision("bf16", "mkldnn.all")
    below = {"cuda matmul tf32", "cuda conv tf32", "cuda rnn tf32"}
    below |= {f"mkldnn {operation} bf16" for operation in ("matmul", "conv", "rnn")}
    assert set(observe().below_float32) == below
    assert observe().cudnn
    torch.backends.cudnn.enabled = False
    assert not observe().cudnn


@pytest.mark.usefixtures("caller")
def test_an_error_leaves_everything_as_it_was() -> None:
    def fail(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert_exact()
        raise KeyError("mine")

    before = state()
    with pytest.raises(KeyError, match="mine"):
        graph(fail).run(regions())
    assert state() == before


@pytest.mark.usefixtures("caller")
def test_threads_keep_each_other_exact() -> None:
    """The first to leave must not change it for the other, nor the other leave it changed."""
    entered, left, seen = Barrier(2), Event(), []

    def first(given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        entered.wait(timeout=60)
        return given, given, given

    def second(given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        entered.wait(timeout=60)
        assert left.wait(timeout=60)
        seen.append(observe())
        return given, given, given

    before = state()
    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(graph(first).run, regions())
        late = pool.submit(graph(second).run, regions())
        early.result(timeout=60)
        left.set()
        late.result(timeout=60)

    assert [(one.below_float32, one.cudnn) for one in seen] == [((), before["cudnn"])]
    assert state() == before


def test_a_setting_that_fails_half_way_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(precision: str) -> None:
        raise AttributeError(precision)

    old_switches(matmul="high")
    before = state()
    with monkeypatch.context() as patched:
        patched.setattr(torch, "set_float32_matmul_precision", fail)
        with pytest.raises(AttributeError):
            exactly(observe)()
    assert state() == before
    assert exactly(observe)().below_float32 == ()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_nothing_is_cast_behind_a_models_back(kind: str) -> None:
    product = exactly(lambda: torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.set_autocast_enabled(kind, True)
        assert product() == torch.float32
        assert torch.is_autocast_enabled(kind)
        torch.set_autocast_enabled("cuda", False)


def graph(function: Callable[..., tuple[torch.Tensor, ...]]) -> TorchGraph:
    return TorchGraph(signature("image_encoder", SGR, "fp32"), function)


def regions() -> dict[str, torch.Tensor]:
    return {"regions": torch.zeros(1, SGR.regions, SGR.img_dim)}
