"""What a bundle can be scored with on this machine: the facts that `policy.choose` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from sgraf_deploy.config import PRECISIONS, Precision
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.registry import unavailable
from sgraf_deploy.errors import UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.engines.trt.plans import Sidecar


class Machine:
    """See `policy.Facts`. Without a bundle: a bundle that has everything but compiled plans."""

    def __init__(self, bundle: Bundle | None = None, options: EngineOptions | None = None) -> None:
        self._bundle = bundle
        self._options = options or EngineOptions()

    @property
    def name(self) -> str:
        """What a message calls the bundle."""
        return "the bundle" if self._bundle is None else f"bundle {self._bundle.path}"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that the bundle has graphs of."""
        return PRECISIONS if self._bundle is None else self._bundle.manifest.precisions

    @property
    def weights(self) -> bool:
        """Whether there are the original weights, in the bundle or in checkpoints beside it."""
        if self._bundle is None or self._options.checkpoints:
            return True
        return all(one.reference is not None for one in self._bundle.manifest.members.values())

    @property
    def allow_unverified(self) -> bool:
        """Whether plans may be opened that this user never compared with the reference."""
        return self._options.allow_unverified

    def unavailable(self, engine_name: str, device: str) -> UnavailableError | None:
        """Why an engine does not work here on a device, or None if it does; imports its package."""
        return unavailable(engine_name, device)

    def no_gpu(self) -> UnavailableError | None:
        """Why NVIDIA's driver shows no GPU, or None if it shows one."""
        from sgraf_deploy.engines.gpu import find_driver

        try:
            find_driver()
        except UnavailableError as error:
            return error
        return None

    def plans(self, device: str) -> Mapping[Precision, bool]:
        """The precisions with a plan of every graph for that GPU; true if this user verified it.

        Neither the driver nor TensorRT is touched where there is no such set of plans.
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
        """The sidecars of every whole set of plans."""
        from sgraf_deploy.engines.trt.plan_host import whole_sets

        return {} if self._bundle is None else whole_sets(self._bundle, self._options.engine_dir)
