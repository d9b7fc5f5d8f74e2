"""Lists a bundle's compiled plans, without a GPU and without opening any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, GraphName, Precision
from sgraf_deploy.engines.gpu import Gpu, find_driver
from sgraf_deploy.engines.state import is_verified
from sgraf_deploy.engines.trt.library import TensorRT, find_tensorrt
from sgraf_deploy.engines.trt.plan_host import PlanHost
from sgraf_deploy.engines.trt.plans import (
    Sidecar,
    differing,
    largest_sizes,
    load_plan,
    plan_folder,
    plan_name,
    read_sidecar,
)
from sgraf_deploy.engines.trt.rtx import rebuild
from sgraf_deploy.errors import BundleError, UnavailableError

State = Literal["verified", "not verified", "not known here", "not for this machine", "unusable"]


@dataclass(frozen=True)
class Host:
    """A TensorRT, and the GPUs that it runs on."""

    tensorrt: TensorRT
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Listed:
    """One plan; `sidecar` is None if that cannot be read, and `problem` says why it is unusable.

    `hint` says how to build a plan for this machine, if this one is for another. `largest` holds
    the largest sizes of every profile by axis.
    """

    name: str
    state: State
    sidecar: Sidecar | None = None
    largest: tuple[dict[str, int], ...] = ()
    problem: BundleError | None = None
    hint: str | None = None


def find_host() -> Host | None:
    """What plans run on here; None without a GPU or TensorRT."""
    try:
        driver, tensorrt = find_driver(), find_tensorrt()
    except UnavailableError:
        return None
    return Host(tensorrt, driver.gpus)


def list_plans(bundle: Bundle, engine_dir: Path | None = None) -> list[Listed]:
    """Every plan that has a sidecar, in the order of members, precisions and graphs.

    Raises BundleError where the folder inside the bundle is a link.
    """
    folder = plan_folder(bundle, engine_dir)
    names = list(_names(bundle, folder))
    host = find_host() if names else None
    return [_listed(bundle, folder, host, name) for name in names]


def _names(bundle: Bundle, folder: Path) -> Iterator[tuple[str, Precision, GraphName]]:
    for member, files in bundle.manifest.members.items():
        for precision in files.graphs:
            for graph in GRAPHS:
                # A link that leads nowhere has to be shown, too.
                if os.path.lexists(folder / f"{plan_name(member, precision, graph)}.json"):
                    yield member, precision, graph


def _listed(
    bundle: Bundle,
    folder: Path,
    host: Host | None,
    place: tuple[str, Precision, GraphName],
) -> Listed:
    member, precision, graph = place
    name, file = plan_name(member, precision, graph), bundle.graph(member, graph, precision)
    expected = {
        "member": member,
        "precision": precision,
        "graph": graph,
        "onnx_sha256": file.ref.sha256,
    }
    sidecar = None
    try:
        sidecar = read_sidecar(folder, member, precision, graph)
        largest = largest_sizes(file.signature, sidecar)
        load_plan(folder, expected, lambda _: True)  # Its bytes are hashed, and not opened.
    except BundleError as error:
        return Listed(name, "unusable", sidecar, problem=error)
    state = _state(bundle, sidecar, host)
    hint = None
    if host is not None and state == "not for this machine":
        hint = rebuild(host.tensorrt.flavour, host.gpus[0].compute_capability)
    return Listed(name, state, sidecar, largest, hint=hint)


def _state(bundle: Bundle, sidecar: Sidecar, host: Host | None) -> State:
    """Whether a plan passed the gate for this user, on any GPU of this machine that it is for."""
    if host is None:
        return "not known here"
    fitting = [
        each
        for each in (PlanHost(bundle, gpu, host.tensorrt) for gpu in host.gpus)
        if not differing(sidecar, each.expected(sidecar.member, sidecar.precision, sidecar.graph))
    ]
    if not fitting:
        return "not for this machine"
    verified = any(is_verified(each.mark(sidecar)) for each in fitting)
    return "verified" if verified else "not verified"
