"""What a compiled plan must be to run here: its sidecar's fields, and this user's mark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, GraphName, Precision
from sgraf_deploy.engines.gpu import Gpu
from sgraf_deploy.engines.state import Mark, is_verified
from sgraf_deploy.engines.trt.library import TensorRT
from sgraf_deploy.engines.trt.plans import Sidecar, differing, plan_folder, read_sidecar
from sgraf_deploy.errors import BundleError


@dataclass(frozen=True)
class PlanHost:
    """A bundle on one GPU, with one TensorRT: what its plans run on."""

    bundle: Bundle
    gpu: Gpu
    tensorrt: TensorRT

    def expected(self, member: str, precision: Precision, graph: GraphName) -> dict[str, object]:
        """The fields that the sidecar of a graph's plan must have."""
        return {
            "member": member,
            "precision": precision,
            "graph": graph,
            "onnx_sha256": self.bundle.graph(member, graph, precision).ref.sha256,
            "flavour": self.tensorrt.flavour,
            "version": self.tensorrt.version,
            "compute_capability": self.gpu.compute_capability,
        }

    def mark(self, sidecar: Sidecar) -> Mark:
        """What is remembered of a plan once it passed the gate here."""
        gate = self.bundle.manifest.gate
        return Mark(
            plan_sha256=sidecar.plan_sha256,
            onnx_sha256=sidecar.onnx_sha256,
            reference_sha256="" if gate is None else gate.sha256,
            flavour=self.tensorrt.flavour,
            version=self.tensorrt.version,
            device=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
        )

    def verified(self, found: Mapping[Precision, list[Sidecar]]) -> dict[Precision, bool]:
        """The whole sets of plans that fit here; true if all passed the gate for this user."""
        return {
            precision: all(is_verified(self.mark(sidecar)) for sidecar in sidecars)
            for precision, sidecars in found.items()
            if not any(
                differing(one, self.expected(one.member, one.precision, one.graph))
                for one in sidecars
            )
        }


def whole_sets(bundle: Bundle, engine_dir: Path | None) -> dict[Precision, list[Sidecar]]:
    """The sidecars of every precision that has a plan of every graph, whatever GPU it is for.

    Only these small files are read. A damaged one counts as absent: opening the engine says what
    is wrong with it.
    """
    found: dict[Precision, list[Sidecar]] = {}
    for precision in bundle.manifest.precisions:
        try:
            folder = plan_folder(bundle, engine_dir)
            found[precision] = [
                read_sidecar(folder, member, precision, graph)
                for member in bundle.manifest.members
                for graph in GRAPHS
            ]
        except BundleError:
            continue
    return found
