"""The driver's answers, from a driver that is made up."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from support.refusals import naming, refused

from sgraf_deploy.engines.gpu import LIBRARY, Driver, Gpu, find_driver
from sgraf_deploy.errors import UnavailableError


class FakeDriver:
    """Two GPUs; `refuses` names a call that fails with error 999."""

    def __init__(self, gpus: int = 2, refuses: str = "") -> None:
        self.gpus, self.refuses = gpus, refuses

    def __getattr__(self, call: str) -> Any:
        def answer(*arguments: Any) -> int:
            if call == self.refuses:
                return 999
            self.fill(call, arguments)
            return 0

        return answer

    def fill(self, call: str, arguments: tuple[Any, ...]) -> None:
        target = arguments[0]
        if call == "cuDriverGetVersion":
            target._obj.value = 13010
        elif call == "cuDeviceGetCount":
            target._obj.value = self.gpus
        elif call == "cuDeviceGet":
            target._obj.value = 10 + arguments[1]
        elif call == "cuDeviceGetName":
            target.value = f"GPU {arguments[2].value}".encode()
        elif call == "cuDeviceGetAttribute":
            target._obj.value = {75: 8, 76: 9}[arguments[1]]


def test_every_gpu_is_named() -> None:
    asked = []

    def load(name: str) -> FakeDriver:
        asked.append(name)
        return FakeDriver()

    assert find_driver(load) == Driver("13.1", (Gpu("GPU 10", "8.9"), Gpu("GPU 11", "8.9")))
    assert asked == [LIBRARY]


def test_without_a_driver_that_is_said() -> None:
    with refused(UnavailableError, "NVIDIA", got=naming("libno-such.so")):
        find_driver(lambda _: ctypes.CDLL("libno-such.so"))


def test_without_a_gpu_that_is_said() -> None:
    with refused(UnavailableError, "GPU", got=None):
        find_driver(lambda _: FakeDriver(0))


@pytest.mark.parametrize(
    "call",
    [
        *("cuInit", "cuDriverGetVersion", "cuDeviceGetCount"),
        *("cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"),
    ],
)
def test_a_call_that_is_refused_is_named(call: str) -> None:
    with refused(UnavailableError, call, 999):
        find_driver(lambda _: FakeDriver(refuses=call))
