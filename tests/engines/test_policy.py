"""The one policy, as a table: what is asked for, what there is, and what is taken or said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
from support.refusals import holds, naming, refused

from sgraf_deploy.config import PRECISIONS, Precision
from sgraf_deploy.engines.policy import Choice, Request, choose, parse_request
from sgraf_deploy.engines.registry import ENGINES
from sgraf_deploy.errors import InputError, SgrafDeployError, UnavailableError

BOTH: tuple[Precision, ...] = ("fp32", "fp16")


@dataclass(frozen=True)
class World:
    """A machine and a bundle. `works` holds `engine` or `engine@device`, by default all there are.

    Without a GPU no engine works on one; `fused` works on the CPU in an interpreter alone.
    """

    precisions: tuple[Precision, ...] = BOTH
    gpus: int = 0
    missing: tuple[str, ...] = ()
    compiled: Mapping[str, Mapping[Precision, bool]] = field(default_factory=dict)
    weights: bool = True
    allow_unverified: bool = False
    interpreter: bool = False
    name: str = "bundle b.sgraf"

    def unavailable(self, engine: str, device: str) -> UnavailableError | None:
        if engine in self.missing:
            return UnavailableError(f"no package of {engine}", hint=f"install {engine}")
        if device == "cpu":
            works = engine != "fused" or self.interpreter
        else:
            works = int(device.removeprefix("cuda:")) < self.gpus
        return None if works else UnavailableError(f"not on {device}", hint="have one")

    def no_gpu(self) -> UnavailableError | None:
        return None if self.gpus else UnavailableError("no NVIDIA driver")

    def plans(self, device: str) -> Mapping[Precision, bool]:
        return self.compiled.get(device, {}) if self.unavailable("trt", device) is None else {}


CPU = World()
GPU = World(gpus=2)
VERIFIED = replace(GPU, compiled={"cuda:0": {"fp16": True}})
UNVERIFIED = replace(GPU, compiled={"cuda:0": {"fp16": False}})
ON_THE_SECOND = replace(GPU, compiled={"cuda:1": {"fp16": True}})
WITHOUT_A_DRIVER = replace(CPU, compiled={"cuda:0": {"fp16": True}})
ONLY_32, ONLY_16 = (replace(CPU, precisions=(only,)) for only in BOTH)
GPU_32, GPU_16 = (replace(GPU, precisions=(only,)) for only in BOTH)
FP8 = replace(GPU, precisions=PRECISIONS)

NATIVE, ORT = Choice("native", "fp32", "cpu"), Choice("ort", "fp32", "cpu")
TORCH = Choice("torch", "fp32", "cpu")
ROUNDED = Choice("torch", "fp16", "cpu")
TRT = Choice("trt", "fp16", "cuda:0")


def asked(engine: str = "auto", precision: Any = None, device: str | None = None) -> Request:
    return Request(engine, precision, device)


TAKEN: list[tuple[str, World, Request, Choice]] = [
    # Nothing is asked for.
    ("nothing", CPU, asked(), NATIVE),
    ("nothing-on-a-gpu", GPU, asked(), NATIVE),
    ("nothing-verified-there", VERIFIED, asked(), TRT),
    ("nothing-not-verified-there", UNVERIFIED, asked(), NATIVE),
    ("nothing-allowed-only", replace(UNVERIFIED, allow_unverified=True), asked(), NATIVE),
    ("nothing-verified-on-the-second", ON_THE_SECOND, asked(), NATIVE),
    ("nothing-plans-without-a-gpu", WITHOUT_A_DRIVER, asked(), NATIVE),
    ("nothing-no-tensorrt", replace(VERIFIED, missing=("trt",)), asked(), NATIVE),
    ("nothing-no-compiler", replace(CPU, missing=("native",)), asked(), ORT),
    ("nothing-torch-alone", replace(CPU, missing=("native", "ort")), asked(), TORCH),
    ("nothing-torch-alone-gpu", replace(GPU, missing=("native", "ort")), asked(), TORCH),
    ("nothing-fp32-alone", ONLY_32, asked(), NATIVE),
    ("nothing-fp16-alone", ONLY_16, asked(), ROUNDED),
    ("nothing-fp16-alone-gpu", GPU_16, asked(), ROUNDED),
    ("nothing-fp16-alone-verified", replace(VERIFIED, precisions=("fp16",)), asked(), TRT),
    ("nothing-fp32-verified",
     replace(GPU, compiled={"cuda:0": {"fp32": True}}), asked(), Choice("trt", "fp32", "cuda:0")),
    ("nothing-one-of-two-verified",
     replace(GPU, compiled={"cuda:0": {"fp16": False, "fp32": True}}), asked(),
     Choice("trt", "fp32", "cuda:0")),
    ("nothing-fp8-exported", FP8, asked(), NATIVE),
    ("nothing-fp8-verified-beside-fp16",
     replace(FP8, compiled={"cuda:0": {"fp8": True, "fp16": True}}), asked(), TRT),
    ("nothing-no-weights", replace(CPU, weights=False), asked(), NATIVE),
    # A precision.
    ("fp32", CPU, asked(precision="fp32"), NATIVE),
    ("fp16", CPU, asked(precision="fp16"), ROUNDED),
    ("fp16-verified", VERIFIED, asked(precision="fp16"), TRT),
    ("fp32-another-verified", VERIFIED, asked(precision="fp32"), NATIVE),
    ("fp8", replace(FP8, gpus=0), asked(precision="fp8"), Choice("torch", "fp8", "cpu")),
    # A device.
    ("cpu", CPU, asked(device="cpu"), NATIVE),
    ("cpu-verified", VERIFIED, asked(device="cpu"), NATIVE),
    ("cpu-fp16-alone", ONLY_16, asked(device="cpu"), ROUNDED),
    ("cuda", GPU, asked(device="cuda"), Choice("torch", "fp32", "cuda:0")),
    ("cuda-verified", VERIFIED, asked(device="cuda"), TRT),
    ("cuda-not-verified", UNVERIFIED, asked(device="cuda"), Choice("torch", "fp32", "cuda:0")),
    ("cuda-fp16", GPU, asked(device="cuda", precision="fp16"), Choice("torch", "fp16", "cuda:0")),
    ("cuda-fp16-alone", GPU_16, asked(device="cuda"), Choice("torch", "fp16", "cuda:0")),
    ("cuda-no-torch", replace(GPU, missing=("torch",)), asked(device="cuda"),
     Choice("ort-cuda", "fp16", "cuda:0")),
    ("cuda-no-torch-fp32", replace(GPU_32, missing=("torch",)), asked(device="cuda"),
     Choice("ort-cuda", "fp32", "cuda:0")),
    ("cuda-no-weights", replace(GPU, weights=False), asked(device="cuda"),
     Choice("ort-cuda", "fp16", "cuda:0")),
    ("cuda:1", GPU, asked(device="cuda:1"), Choice("torch", "fp32", "cuda:1")),
    ("cuda:1-verified-on-the-first", VERIFIED, asked(device="cuda:1"),
     Choice("torch", "fp32", "cuda:1")),
    ("cuda:1-verified", ON_THE_SECOND, asked(device="cuda:1"), Choice("trt", "fp16", "cuda:1")),
    # Every engine by name.
    ("native", CPU, asked("native"), NATIVE),
    ("native-on-a-gpu", VERIFIED, asked("native"), NATIVE),
    ("native-cpu", CPU, asked("native", device="cpu"), NATIVE),
    ("ort", CPU, asked("ort"), ORT),
    ("ort-fp16", CPU, asked("ort", "fp16"), Choice("ort", "fp16", "cpu")),
    ("ort-fp16-alone", ONLY_16, asked("ort"), Choice("ort", "fp16", "cpu")),
    ("torch", CPU, asked("torch"), TORCH),
    ("torch-on-a-gpu", GPU, asked("torch"), Choice("torch", "fp32", "cuda:0")),
    ("torch-cpu", GPU, asked("torch", device="cpu"), TORCH),
    ("torch-cuda:1", GPU, asked("torch", device="cuda:1"), Choice("torch", "fp32", "cuda:1")),
    ("torch-fp16-alone", ONLY_16, asked("torch"), ROUNDED),
    ("torch-without-weights", replace(CPU, weights=False), asked("torch"), TORCH),
    ("torch-reference", CPU, asked("torch-reference"), Choice("torch-reference", "fp32", "cpu")),
    ("torch-reference-on-a-gpu", GPU, asked("torch-reference"),
     Choice("torch-reference", "fp32", "cuda:0")),
    ("trt", VERIFIED, asked("trt"), TRT),
    ("trt-cuda", VERIFIED, asked("trt", device="cuda"), TRT),
    ("trt-cuda:1", VERIFIED, asked("trt", device="cuda:1"), Choice("trt", "fp16", "cuda:1")),
    ("trt-without-plans", GPU, asked("trt"), TRT),
    ("trt-without-plans-fp32", GPU_32, asked("trt"), Choice("trt", "fp32", "cuda:0")),
    ("trt-not-verified", UNVERIFIED, asked("trt"), TRT),
    ("trt-fp32-compiled", replace(GPU, compiled={"cuda:0": {"fp32": True}}), asked("trt"),
     Choice("trt", "fp32", "cuda:0")),
    ("trt-fp8-compiled", replace(FP8, compiled={"cuda:0": {"fp8": False}}), asked("trt"),
     Choice("trt", "fp8", "cuda:0")),
    ("trt-one-of-two-verified",
     replace(GPU, compiled={"cuda:0": {"fp16": False, "fp32": True}}), asked("trt"),
     Choice("trt", "fp32", "cuda:0")),
    ("trt-one-of-two-verified-both-allowed",
     replace(GPU, compiled={"cuda:0": {"fp16": False, "fp32": True}}, allow_unverified=True),
     asked("trt"), TRT),
    ("trt-fp32-asked-for", VERIFIED, asked("trt", "fp32"), Choice("trt", "fp32", "cuda:0")),
    ("ort-cuda", GPU, asked("ort-cuda"), Choice("ort-cuda", "fp16", "cuda:0")),
    ("ort-cuda-fp32-alone", GPU_32, asked("ort-cuda"), Choice("ort-cuda", "fp32", "cuda:0")),
    ("ort-trt-cuda:1", GPU, asked("ort-trt", device="cuda:1"),
     Choice("ort-trt", "fp16", "cuda:1")),
    ("fused", GPU, asked("fused"), Choice("fused", "fp16", "cuda:0")),
    ("fused-interpreter", replace(CPU, interpreter=True), asked("fused"),
     Choice("fused", "fp16", "cpu")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("world", "request_", "expected"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN]
)
def test_what_is_taken(world: World, request_: Request, expected: Choice) -> None:
    assert choose(request_, world) == expected


NOTHING = replace(CPU, missing=("native", "ort", "torch"))

Names = tuple[object, ...]
REFUSED: list[tuple[str, World, Request, type[SgrafDeployError], Names, Any]] = [
    ("unknown-engine", CPU, asked("turbo"), InputError,
     ("engine", "auto", "native", "turbo"), None),
    ("unknown-device", CPU, asked(device="tpu"), InputError, ("device", "tpu"), None),
    ("unknown-gpu", CPU, asked(device="cuda:x"), InputError,
     ("device", "cpu", "cuda", "cuda:N", "cuda:x"), None),
    ("not-exported", ONLY_32, asked(precision="fp16"), InputError,
     ("bundle b.sgraf", "fp32", "fp16"), None),
    ("not-exported-by-name", ONLY_32, asked("trt", "fp8"), InputError, ("fp32", "fp8"), None),
    # Wishes that contradict each other.
    ("native-cuda", GPU, asked("native", device="cuda"), InputError,
     ("native", "cpu", "cuda"), ["torch", "cuda:0"]),
    ("native-cuda-verified", VERIFIED, asked("native", device="cuda"), InputError,
     ("native", "cpu", "cuda"), ["trt", "cuda:0"]),
    ("ort-cuda:1", GPU, asked("ort", device="cuda:1"), InputError,
     ("ort", "cpu", "cuda:1"), ["torch", "cuda:1"]),
    ("trt-cpu", VERIFIED, asked("trt", device="cpu"), InputError,
     ("trt", "cuda", "cpu"), ["native", "cpu"]),
    # Engines that do not work here, or do not run what is wanted.
    ("native-fp16", CPU, asked("native", "fp16"), UnavailableError,
     ("native", "fp32", "fp16"), "--engine torch"),
    ("native-fp16-alone", ONLY_16, asked("native"), UnavailableError,
     ("native", "fp32", "fp16"), "--engine torch"),
    ("native-missing", replace(CPU, missing=("native",)), asked("native"), UnavailableError,
     ("native", "no package of native"), "install native"),
    ("torch-missing", replace(CPU, missing=("torch",)), asked("torch"), UnavailableError,
     ("torch", "no package of torch"), "install torch"),
    ("torch-no-gpu", CPU, asked("torch", device="cuda"), UnavailableError,
     ("torch", "no NVIDIA driver"), "--engine native"),
    ("trt-no-gpu", WITHOUT_A_DRIVER, asked("trt"), UnavailableError,
     ("trt", "no NVIDIA driver"), "--engine native"),
    ("trt-no-gpu-how-to-go-on", CPU, asked("trt"), UnavailableError, (), "sgraf-deploy compile"),
    ("trt-no-gpu-where-to-measure", CPU, asked("trt"), UnavailableError, (), "bench gpu"),
    ("trt-no-gpu-no-package", replace(CPU, missing=("trt",)), asked("trt"), UnavailableError,
     ("trt", "no NVIDIA driver"), "--engine native"),
    ("trt-no-package", replace(GPU, missing=("trt",)), asked("trt"), UnavailableError,
     ("trt", "no package of trt"), "install trt"),
    ("trt-no-gpu-fp16", CPU, asked("trt", "fp16"), UnavailableError,
     ("no NVIDIA driver",), "--engine torch"),
    ("trt-no-gpu-nothing-else", replace(CPU, missing=("native", "ort", "torch")), asked("trt"),
     UnavailableError, ("no NVIDIA driver",), "sgraf-deploy compile"),
    ("ort-cuda-no-gpu", CPU, asked("ort-cuda"), UnavailableError,
     ("ort-cuda", "no NVIDIA driver"), "--engine native"),
    ("trt-no-second-gpu", replace(VERIFIED, gpus=1), asked("trt", device="cuda:1"),
     UnavailableError, ("trt", "not on cuda:1"), "have one"),
    ("fused-no-gpu", CPU, asked("fused"), UnavailableError,
     ("fused", "no NVIDIA driver"), "--engine native"),
    ("fused-missing", replace(CPU, missing=("fused",)), asked("fused"), UnavailableError,
     ("no package of fused",), "install fused"),
    ("fused-cpu", CPU, asked("fused", device="cpu"), UnavailableError, ("not on cpu",), "have one"),
    # `auto` that finds nothing says why of each, once.
    ("nothing-at-all", NOTHING, asked(), UnavailableError,
     ("no package of native", "no package of ort", "no package of torch"), "install native"),
    ("fp16-without-torch", replace(ONLY_16, missing=("torch",)), asked(), UnavailableError,
     ("native", "ort", "fp32", "no package of torch"), "install torch"),
    ("fp16-without-weights", replace(ONLY_16, weights=False), asked(), UnavailableError,
     ("native", "ort", "torch", "bundle b.sgraf"), "--checkpoint FILE"),
    ("cuda-nowhere", CPU, asked(device="cuda"), UnavailableError,
     ("trt", "torch", "ort-cuda", "not on cuda:0"), "--engine native"),
    ("cuda-not-verified-alone", replace(UNVERIFIED, missing=("torch", "ort-cuda")),
     asked(device="cuda"), UnavailableError,
     ("trt", "no package of torch", "no package of ort-cuda"), "install torch"),
    ("cuda-fp8-not-verified-alone",
     replace(FP8, compiled={"cuda:0": {"fp8": False}}, weights=True, missing=("torch",)),
     asked(precision="fp8", device="cuda"), UnavailableError,
     ("trt", "no package of torch"), "install torch"),
    ("fp8-nowhere", replace(FP8, missing=("torch",)), asked(precision="fp8", device="cuda"),
     UnavailableError, ("fp8", "cuda:0", "ort-cuda", "fp16", "fp32"), "install torch"),
]  # fmt: skip
"""Names in what is said, which are the world's own texts, too; and those in the hint."""


@pytest.mark.parametrize(
    ("world", "request_", "kind", "names", "hint"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_what_is_refused(
    world: World, request_: Request, kind: type[SgrafDeployError], names: Names, hint: Any
) -> None:
    with refused(kind, hint=hint) as caught:
        choose(request_, world)
    for name in names:
        assert holds(caught.error.reason, name)
    assert caught.error.reason.count(f"engine {request_.engine}") <= 1


def test_no_engine_is_named_where_none_works() -> None:
    with refused(InputError, "native", expected="cpu", got="cuda", hint="cuda:0") as caught:
        choose(asked("native", device="cuda"), CPU)
    assert not any(holds(str(caught.error.hint), name) for name in ENGINES)


@pytest.mark.parametrize(
    ("world", "hint"),
    [(GPU, "sgraf-deploy compile BUNDLE"), (UNVERIFIED, "--allow-unverified")],
    ids=["not-compiled", "not-verified"],
)
def test_why_compiled_engines_are_left_alone(
    world: World, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgraf_deploy.engines.policy.ON_A_GPU", ("trt",))
    with refused(UnavailableError, "trt", "cuda:0", hint=hint):
        choose(asked(device="cuda"), world)


def test_a_gpu_that_nobody_asked_for_is_no_reason() -> None:
    with refused(UnavailableError) as caught:
        choose(asked(), replace(NOTHING, compiled={"cuda:0": {"fp16": False}}))
    assert not holds(caught.error.reason, "trt")


@pytest.mark.parametrize(
    "world",
    [CPU, GPU, VERIFIED, UNVERIFIED, ONLY_32, ONLY_16, GPU_32, GPU_16, NOTHING],
    ids=["cpu", "gpu", "verified", "unverified", "fp32", "fp16", "gpu-32", "gpu-16", "nothing"],
)
def test_a_wish_is_fulfilled_or_refused_and_never_replaced(world: World) -> None:
    devices, precisions = (None, "cpu", "cuda", "cuda:1"), (None, "fp32", "fp16")
    fulfilled = 0
    for wish in product(("auto", *ENGINES), precisions, devices):
        engine, precision, device = wish
        try:
            found = choose(asked(engine, precision, device), world)
        except (InputError, UnavailableError):
            continue
        fulfilled += 1
        assert engine in ("auto", found.engine), wish
        assert precision in (None, found.precision), wish
        assert device in (None, found.device, {"cuda:0": "cuda"}.get(found.device)), wish
        assert world.unavailable(found.engine, found.device) is None, wish
        assert found.precision in {*world.precisions} & {*ENGINES[found.engine].precisions}, wish
    assert fulfilled > 0, "torch-reference, where there is nothing else"


@pytest.mark.parametrize(
    ("text", "precision", "expected"),
    [
        ("auto", None, Request("auto", None, "cpu")),
        ("trt", "fp16", Request("trt", "fp16", "cpu")),
        ("torch:fp16", None, Request("torch", "fp16", "cpu")),
        ("torch:fp16", "fp32", Request("torch", "fp16", "cpu")),
    ],
)
def test_an_engine_may_name_its_precision(text: str, precision: Any, expected: Request) -> None:
    assert parse_request(text, precision, "cpu") == expected


@pytest.mark.parametrize("text", ["ort:", "ort:int8", "ort:fp16:fp32"])
def test_another_precision_is_refused(text: str) -> None:
    with refused(InputError, text, expected=naming("ort:fp32", "ort:fp16", "ort:fp8")):
        parse_request(text, None, None)
