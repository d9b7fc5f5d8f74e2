"""The one kernel of the runtime, compiled by NVRTC for GPUs that are not there."""

from __future__ import annotations

import re

import pytest
from support.refusals import naming, refused

from sgraf_deploy.engines.cuda.kernels import SOURCE, UNITS, compile_kernels, unit_of
from sgraf_deploy.errors import DeviceError, UnavailableError


@pytest.mark.parametrize("compute_capability", ["7.5", "8.0", "8.9", "9.0", "12.0"])
def test_it_compiles_for(compute_capability: str) -> None:
    try:
        code = compile_kernels(compute_capability)
    except UnavailableError as error:
        pytest.skip(f"needs NVRTC: {error}")
    assert code.startswith(b"\x7fELF")
    for unit in UNITS:
        assert f"gather_{unit}".encode() in code


def test_an_unknown_gpu_is_refused_with_the_compilers_reason() -> None:
    try:
        compile_kernels("8.0")
    except UnavailableError as error:
        pytest.skip(f"needs NVRTC: {error}")
    with refused(DeviceError, "NVRTC", "1.0", got=naming("gpu-architecture")):
        compile_kernels("1.0")


def test_every_unit_has_a_kernel_of_its_own() -> None:
    assert re.findall(r"void gather_(\d+)", SOURCE) == [str(unit) for unit in UNITS]
    assert [unit_of(size) for size in (4096, 36 * 4, 6, 32, 20, 3)] == [16, 16, 2, 16, 4, 1]
    assert unit_of(4096, 0x7F0010, 0x7F0004) == 4
