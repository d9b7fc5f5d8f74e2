"""What the tests with other programs share: the demo's bundle, and where the programs are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.elsewhere import build_example

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import PrecompSplit

HEADERS = (
    "com.github.asus4.onnxruntime/Plugins/iOS~/onnxruntime.xcframework/ios-arm64/"
    "onnxruntime.framework/Headers"
)
"""Where an npm package has the headers of ONNX Runtime's C API, which are the same everywhere."""


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder of npm packages that `make test-outside` installs."""
    variable = "SGRAF_DEPLOY_NODE_MODULES"
    if variable not in os.environ:
        pytest.fail(f"{variable} names no folder: run `make test-outside`")
    return Path(os.environ[variable]).resolve()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo's bundle with combined graphs, in fp32 and fp16; nobody changes it."""
    from sgraf_deploy.demo.assets import CHECKPOINTS, PACKAGED, VOCABULARY
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    options = ExportOptions(vocabulary=PACKAGED / VOCABULARY, combined=True)
    target = tmp_path_factory.mktemp("demo") / "demo.sgraf"
    return export_bundle([PACKAGED / name for name in CHECKPOINTS], target, options).bundle


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrecompSplit]:
    """The demo's scenes as a precomp folder, and in memory."""
    from sgraf_deploy.data.synthetic.splits import write_split
    from sgraf_deploy.demo.assets import demo_split

    folder = tmp_path_factory.mktemp("scenes")
    split = demo_split()
    write_split(folder, split)
    return folder, split


@pytest.fixture(scope="session")
def example(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The C++ example, built once for each of `onnxruntime` and `openvino`."""
    import onnxruntime
    import openvino

    built: dict[str, Path] = {}
    libraries = tmp_path_factory.mktemp("libraries")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # as ONNX Runtime's archives have it
        (libraries / name).symlink_to(library)
    options = {
        "onnxruntime": (
            f"-DONNXRUNTIME_INCLUDE={node_modules / HEADERS}",
            f"-DONNXRUNTIME_LIBRARY={libraries / 'libonnxruntime.so'}",
        ),
        "openvino": (f"-DOpenVINO_DIR={Path(openvino.__file__).parent / 'cmake'}",),
    }

    def build(runtime: str) -> Path:
        if runtime not in built:
            folder = tmp_path_factory.mktemp(runtime)
            built[runtime] = build_example(folder, f"-DRUNTIME={runtime}", *options[runtime])
        return built[runtime]

    return build
