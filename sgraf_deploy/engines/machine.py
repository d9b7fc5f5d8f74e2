"""The facts about this machine and a bundle that `policy.choose` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from sgraf_deploy.config import PRECISIONS, Precision
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.registry import refusal, unavailable
from sgraf_deploy.errors import UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.engines.trt.plans import Sidecar


class Machine:
    """See `policy.Facts`; without a bundle, of one that has everything but compiled plans."""

    def __init__(self, bundle: Bundle | None = None, options: EngineOptions | None = None) -> None:
        self._bundle = bundle
        self._options = options or EngineOptions()

    @property
    def name(self) -> str:
        """The bundle, as messages name it."""
        return "the bundle" if self._bundle is None else f"bundle {self._bundle.path}"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that the bundle has graphs of."""
        return PRECISIONS if self._bundle is None else self._bundle.manifest.precisions

    @property
    def weights(self) -> bool:
        """Whether the bundle, or a checkpoint in the options, has the original weights."""
        if self._bundle is None or self._options.checkpoints:
            return True
        members = self._bundle.manifest.members.values()
        return all(member.reference is not None for member in members)

    @property
    def allow_unverified(self) -> bool:
        """Whether plans may be opened that this user never compared with the reference."""
        return self._options.allow_unverified

    def unavailable(self, engine_name: str, device: str) -> UnavailableError | None:
        """Why an engine does not work here on a device; None if it does. Imports its package."""
        return unavailable(engine_name, device)

    def no_gpu(self) -> UnavailableError | None:
        """Why NVIDIA's driver shows no GPU; None if it shows one."""
        from sgraf_deploy.engines.gpu import find_driver

        return refusal(find_driver)

    def plans(self, device: str) -> Mapping[Precision, bool]:
        """The precisions with a plan of every graph for that GPU; true if this user verified them.

        The driver and TensorRT are asked only where there is such a set of plans.
        """
        from sgraf_deploy.engines.gpu import find_gpu
        from sgraf_deploy.engines.trt.library import find_tensorrt
        from sgraf_deploy.engines.trt.plan_host import PlanHost

        if self._bundle is None or not self._compiled:
            return {}
        try:
            gpu, tensorrt = find_gpu(int(device.removeprefix("cuda:"))), find_tensorrt()
        except UnavailableError:
            return {}
        return PlanHost(self._bundle, gpu, tensorrt).verified(self._compiled)

    @cached_property
    def _compiled(self) -> Mapping[Precision, list[Sidecar]]:
        """The sidecars of every complete set of plans."""
        from sgraf_deploy.engines.trt.plan_host import whole_sets

        return {} if self._bundle is None else whole_sets(self._bundle, self._options.engine_dir)
