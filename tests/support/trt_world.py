"""A bundle with engines for the fake GPU, and scorers on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.closeness import Rounded, assert_close, graph_rounding
from support.fake_cuda import FakeCuda
from support.fake_tensorrt import VERSION, FakeTensorRT, fake_plan
from support.fake_tensorrt_rtx import RTX_CAPABILITIES, FakeTensorRTForRtx

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile.profiles import Sizes, profile, uses
from sgraf_deploy.config import GRAPHS, GraphName, Precision, signature
from sgraf_deploy.engines.base import LARGEST_TILES
from sgraf_deploy.engines.gpu import Gpu
from sgraf_deploy.engines.state import Mark, mark_verified
from sgraf_deploy.engines.trt.engine import TrtEngine
from sgraf_deploy.engines.trt.plans import Sidecar, plan_folder, write_plan
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.runtime import EngineOptions, Scorer
from sgraf_deploy.runtime.tiles import TileLimits

SIZES = Sizes(images=4, captions=3, words=20, candidates=7)

Damage = Callable[[bytes], bytes]


def rounding_of(scorer: Scorer) -> Rounded:
    """How often an engine rounds that runs the bundle's graphs in tiles of its own."""
    configs = [member.config for member in scorer.bundle.manifest.members.values()]
    each = [graph_rounding(config, scorer.precision, SIZES.words) for config in configs]
    return max(each, key=lambda rounded: rounded["depth"])


def assert_logits_alike(scorers: tuple[Scorer, Scorer], regions: Any, captions: Any) -> None:
    """Every member's logits of the first scorer are the second's, but for its rounding."""
    scorer, _ = scorers
    found, expected = (one.logits(regions, captions) for one in scorers)
    assert list(found) == ["sgr", "saf"]
    for member, logits in expected.items():
        assert_close(found[member], logits, **rounding_of(scorer))
        assert len(np.unique(found[member])) > 0.9 * logits.size


@dataclass
class TrtWorld:
    """Engines of a bundle in a folder; scorers and engines share the fake GPU."""

    bundle: Bundle
    folder: Path
    cuda: FakeCuda = field(default_factory=FakeCuda)
    capabilities: tuple[str, ...] | None = None
    """What plans run on; None: on any GPU."""

    def __post_init__(self) -> None:
        self.tensorrt = self.make_tensorrt()

    def make_tensorrt(self) -> FakeTensorRT:
        return FakeTensorRT(self.cuda)

    def build(
        self,
        precision: Precision = "fp16",
        sizes: Sizes = SIZES,
        damage: Damage = lambda onnx: onnx,
        verified: bool = True,
        **changes: Any,
    ) -> None:
        """Write a plan for every graph; `damage` changes its ONNX, `changes` its sidecar.

        Those that are `verified` this user has compared with the reference here.
        """
        for member in self.bundle.manifest.members:
            for graph in GRAPHS:
                sidecar = self.build_one(member, graph, precision, sizes, damage, **changes)
                if verified:
                    mark_verified(self.mark(sidecar))

    def build_one(
        self,
        member: str,
        graph: GraphName,
        precision: Precision,
        sizes: Sizes = SIZES,
        damage: Damage = lambda onnx: onnx,
        **changes: Any,
    ) -> Sidecar:
        """Write one plan, which nobody compared."""
        sidecar, plan = self.made(member, graph, precision, sizes, damage)
        sidecar = replace(sidecar, **changes)
        write_plan(self.plans, plan, sidecar)
        return sidecar

    def made(
        self,
        member: str,
        graph: GraphName,
        precision: Precision,
        sizes: Sizes = SIZES,
        damage: Damage = lambda onnx: onnx,
    ) -> tuple[Sidecar, bytes]:
        """One plan for the fake GPU, and its sidecar."""
        config = self.bundle.manifest.members[member].config
        spec = signature(graph, config, precision)
        profiles = tuple(profile(spec, use) for use in uses(graph, sizes))
        onnx = self.bundle.graph_path(member, graph, precision).read_bytes()
        plan = fake_plan(damage(onnx), profiles, self.capabilities)
        digest = hashlib.sha256(plan).hexdigest()
        return Sidecar(
            member=member,
            graph=graph,
            precision=precision,
            onnx_sha256=hashlib.sha256(onnx).hexdigest(),
            plan_sha256=digest,
            plan_bytes=len(plan),
            flavour=self.tensorrt.flavour,
            version=VERSION,
            compute_capabilities=(self.cuda.compute_capability,),
            profiles=profiles,
            workspace_bytes=2**30,
            layers={"HALF": 1},
        ), plan

    def mark(self, sidecar: Sidecar) -> Mark:
        """What says that a plan was compared on the fake GPU."""
        gate = self.bundle.manifest.gate
        return Mark(
            plan_sha256=sidecar.plan_sha256,
            onnx_sha256=sidecar.onnx_sha256,
            reference_sha256=gate.sha256 if gate else "",
            flavour=self.tensorrt.flavour,
            version=VERSION,
            device=FakeCuda.name,
            compute_capability=self.cuda.compute_capability,
        )

    @property
    def plans(self) -> Path:
        return plan_folder(self.bundle, self.folder)

    def engine(
        self,
        precision: Precision = "fp16",
        *,
        version: str = VERSION,
        folder: Path | None = None,
        **options: Any,
    ) -> TrtEngine:
        """An engine on the fake GPU, with the plans of this world or those in another folder."""
        wanted = EngineOptions(engine_dir=folder or self.folder, **options)
        adaptor = self.tensorrt.adaptor(version)
        return TrtEngine(self.bundle, precision, wanted, tensorrt=adaptor, cuda=self.cuda)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this package find the fake GPU, as the only one, and the fake TensorRT."""

        def find_gpu(ordinal: int) -> Gpu:
            if ordinal:
                raise UnavailableError("number of the GPU", expected="0 … 0", got=ordinal)
            return Gpu(self.cuda.name, self.cuda.compute_capability)

        for module in ("library", "engine"):
            name = f"sgraf_deploy.engines.trt.{module}.find_tensorrt"
            monkeypatch.setattr(name, self.tensorrt.adaptor)
        monkeypatch.setattr("sgraf_deploy.engines.gpu.find_gpu", find_gpu)
        monkeypatch.setattr("sgraf_deploy.engines.trt.engine.check_cuda", find_gpu)
        monkeypatch.setattr("sgraf_deploy.engines.trt.engine.open_cuda", lambda _: self.cuda)

    def scorer(self, precision: Precision = "fp16", **options: Any) -> Scorer:
        """A scorer that encodes a query every time."""
        limits = TileLimits(advice=LARGEST_TILES)
        engine = self.engine(precision, **options)
        return Scorer(self.bundle, engine, precision=precision, limits=limits, caption_cache=0)


@dataclass
class RtxWorld(TrtWorld):
    """The same with TensorRT for RTX, on a GPU that it supports."""

    cuda: FakeCuda = field(default_factory=lambda: FakeCuda("8.9"))
    capabilities: tuple[str, ...] | None = RTX_CAPABILITIES

    @property
    def rtx(self) -> FakeTensorRTForRtx:
        assert isinstance(self.tensorrt, FakeTensorRTForRtx)
        return self.tensorrt

    def make_tensorrt(self) -> FakeTensorRT:
        return FakeTensorRTForRtx(self.cuda)
