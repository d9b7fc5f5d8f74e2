"""Try whether a portable plan, which TensorRT for RTX built for any GPU, runs on this one.

NVIDIA's documentation does not say so for every compute capability. The plan is a single matrix
product in float16, and TensorRT itself is asked, not the rules of this package.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.engines.cuda.api import Cuda
from sgraf_deploy.engines.cuda.arrays import GpuArrays
from sgraf_deploy.engines.cuda.memory import DeviceArray
from sgraf_deploy.engines.trt.library import TensorRT, find_tensorrt
from sgraf_deploy.errors import DeviceError

SIDE = 64
_MASK = slice(0x20, 0x28)
"""The bytes of a plan's header with the compute capabilities that it was built for, as bits."""


def build_product(tensorrt: TensorRT, weights: np.ndarray[Any, Any], logger: Any) -> bytes:
    """Build a plan of x @ weights, all float16 (SIDE, SIDE); DeviceError has TensorRT's reason."""
    trt = tensorrt.module
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    x = network.add_input("x", trt.float16, (SIDE, SIDE))
    constant = network.add_constant((SIDE, SIDE), np.ascontiguousarray(weights))
    none = trt.MatrixOperation.NONE
    product = network.add_matrix_multiply(x, none, constant.get_output(0), none).get_output(0)
    product.name = "y"
    network.mark_output(product)
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    if plan is None:
        raise DeviceError(f"{tensorrt} cannot build a matrix product", got=logger.recent())
    return bytes(plan)


def try_plan(tensorrt: TensorRT, cuda: Cuda | None = None) -> dict[str, Any]:
    """Build, open and, with a GPU, run the plan; return what worked and the reason if not."""
    logger, rng = tensorrt.logger(), np.random.default_rng(0)
    x, weights = (rng.standard_normal((SIDE, SIDE)).astype(np.float16) for _ in range(2))
    plan = build_product(tensorrt, weights, logger)
    mask = int.from_bytes(plan[_MASK], "little")
    result: dict[str, Any] = {"tensorrt": str(tensorrt), "mask": hex(mask), "bytes": len(plan)}
    result |= {"opens": False, "runs": None, "largest_difference": None, "reason": None}
    engine = tensorrt.module.Runtime(logger).deserialize_cuda_engine(plan)
    context = None if engine is None else engine.create_execution_context()
    if context is None:
        return result | {"reason": logger.recent()}
    result["opens"] = True
    if cuda is None:
        return result
    y = _run(GpuArrays(cuda, "cuda:0"), context, x)
    if y is None:
        return result | {"runs": False, "reason": logger.recent()}
    expected = x.astype(np.float32) @ weights.astype(np.float32)
    return result | {"runs": True, "largest_difference": float(np.abs(y - expected).max())}


def _run(engine: GpuArrays, context: Any, x: np.ndarray[Any, Any]) -> Any:
    """Run the plan and return y as float32; None if TensorRT refuses."""
    try:
        source, target = engine.put(x), engine.empty(x.shape, x.dtype)
        lane = engine.lane()
        done: list[bool] = []

        def execute() -> None:
            for name, array in (("x", source), ("y", target)):
                context.set_tensor_address(name, array.pointer)
            done.append(context.execute_async_v3(lane.stream))

        reads: tuple[DeviceArray, ...] = (source,)
        with lane:
            lane.enqueue(execute, reads=reads, writes=(target,))
        return engine.fetch(target).astype(np.float32) if done == [True] else None
    finally:
        engine.close()


def _on_the_device(_: argparse.Namespace) -> dict[str, Any]:
    from sgraf_deploy.engines.cuda.bindings import open_cuda

    cuda = open_cuda()
    return {"compute_capability": cuda.compute_capability, **try_plan(find_tensorrt(), cuda)}


if __name__ == "__main__":
    sys.exit(run_job(argparse.ArgumentParser(description=__doc__), _on_the_device))
