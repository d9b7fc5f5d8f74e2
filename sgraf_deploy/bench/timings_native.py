"""Stages of the compiled scorer, which reads a clock wherever one begins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.stages import ScorerStage
from sgraf_deploy.bench.timings_report import KINDS, MemberTimings, StageTime
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import ModelConfig
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.native.engine import NativeEngine
from sgraf_deploy.engines.native.library import NativeModel
from sgraf_deploy.engines.native.stages import STAGES, Stages

_ORDER = (*(stage for stage in STAGES if stage != "REST"), "REST")


class ProfiledNative(NativeEngine):
    """`native` with the time taken of its scorers' stages."""

    between = "calls into C"

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Take the graphs of `bundle`, in fp32, and open the scorers."""
        super().__init__(bundle, "fp32", options)
        self._profiled: dict[str, ProfiledModel] = {}
        for member in bundle.manifest.members:
            self.open(member, "scorer")
        for model in self._profiled.values():
            model.reset()  # Opening a scorer compares it with its graph.

    def profiles(self) -> dict[str, MemberTimings]:
        """What every member's scorer did so far."""
        return {name: model.profile(name) for name, model in self._profiled.items()}

    def _model(self, member: str, weights: Mapping[str, NDArray[np.float32]]) -> NativeModel:
        model = ProfiledModel(self._bundle.member(member).config, weights)
        self._profiled[member] = model
        return model


class ProfiledModel(NativeModel):
    """A scorer that sums up the times of its runs, by any thread."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__(config, weights)
        self._summing = Lock()
        self.reset()

    def reset(self) -> None:
        """Forget every run."""
        self._spent = np.zeros((len(STAGES), len(KINDS)))  # milliseconds
        self._flop = np.zeros(len(STAGES))
        self._inside, self._runs = 0.0, 0

    def score(
        self,
        inputs: Mapping[str, NDArray[Any]],
        logits: NDArray[np.float32],
        stages: Stages | None = None,
    ) -> None:
        """As `NativeModel.score`, and with the same bits."""
        own = self.no_time()
        start = time.perf_counter_ns()
        super().score(inputs, logits, own)
        inside = time.perf_counter_ns() - start
        with self._summing:
            self._spent += np.array(own.spent) / 1e6
            self._flop += np.array(own.flop)
            self._inside += inside / 1e6
            self._runs += 1

    def profile(self, member: str) -> MemberTimings:
        """The runs so far."""
        found = []
        for name in _ORDER:
            place = STAGES.index(name)
            spent = dict(zip(KINDS, self._spent[place].tolist(), strict=True))
            found.append(StageTime(member, ScorerStage[name], spent, float(self._flop[place])))
        return MemberTimings(tuple(one for one in found if one.total), self._inside, self._runs)
