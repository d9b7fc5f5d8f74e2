"""Fixtures shared by every test, and the surroundings that all of them run in."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from support.built_once import BuiltOnce

from sgraf_deploy.bundle.bundle import Bundle

pytest_plugins = ("support.scorer_fixtures",)

_NUMBERS = count()

SHARED = Path(__file__).resolve().parents[2] / "shared"

SURROUNDINGS = {
    # The tests' models are so small that threads wait for each other more than they compute.
    "OMP_NUM_THREADS": "1",
    # Engine fused needs a GPU or this, which counts only if it is set before triton is imported.
    "TRITON_INTERPRET": "1",
    # What whoever runs the tests has set for themselves.
    "COLUMNS": "80",
    "LINES": "24",
    "TERM": "xterm",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # Whatever would be written there is refused, to root as well.
    "HOME": f"{os.devnull}/home",
    # ONNX Runtime keeps an identifier of the machine there, for reports to its maker.
    "ORT_DISABLE_TELEMETRY": "1",
    "ORT_TELEMETRY_DISABLED": "1",
    # Nothing is told to the makers of the Hub's client, and files come from its server alone.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    # What this user found out on this machine; `_state` gives each test a folder of its own.
    "SGRAF_DEPLOY_STATE": str(Path(os.devnull).resolve() / "none"),
}
UNSET = (
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "NLTK_DATA", "PYTHONOPTIMIZE"),
    *("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONWARNINGS", "PYTHONUNBUFFERED", "PYTHONHASHSEED"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
    *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_TOKEN", "HF_TOKEN_PATH"),
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "HF_DEBUG"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
)
if "PYTEST_XDIST_WORKER" not in os.environ:  # A worker inherits it.
    # PyTorch makes such a folder, and this entry, when it first trains.
    _cache = tempfile.TemporaryDirectory(prefix="sgraf-deploy-tests-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = _cache.name
os.environ.update(SURROUNDINGS)
for _name in UNSET:
    os.environ.pop(_name, None)
os.umask(0o022)


def pytest_configure(config: pytest.Config) -> None:
    """As many examples on a slow machine as on a fast one; the same ones, but in random order."""
    hypothesis.settings.register_profile(
        "here",
        database=None,
        deadline=None,
        derandomize=not config.pluginmanager.hasplugin("randomly"),
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("here")


def surroundings() -> dict[str, Any]:
    """What a test could leave changed for the next one, by name."""
    umask = os.umask(0o022)
    os.umask(umask)
    found: dict[str, Any] = {f"${name}": value for name, value in os.environ.items()}
    found.pop("$PYTEST_CURRENT_TEST", None)
    found |= {"folder": Path.cwd(), "umask": oct(umask), "path": sys.path.copy()}
    found["switch interval"] = sys.getswitchinterval()
    if torch := sys.modules.get("torch"):
        found["torch's threads"] = torch.get_num_threads()
        found["torch's gradients"] = torch.is_grad_enabled()
        found["torch's cuDNN"] = torch.backends.cudnn.enabled
        found["torch's precision"] = [
            torch._C._get_fp32_precision_getter(backend, operation)
            for backend in ("cuda", "mkldnn")
            for operation in ("all", "matmul", "conv", "rnn")
        ]
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left_changed() -> Iterator[None]:
    before = surroundings()
    yield
    after = surroundings()
    imported = {name for name in after if name.startswith("torch's")} - set(before)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed - imported == set()


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder for the state of this test, which is made only where something is kept."""
    name = f"state-{next(_NUMBERS)}"
    monkeypatch.setenv("SGRAF_DEPLOY_STATE", str(tmp_path_factory.getbasetemp() / name))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real checkpoints and data beside the repository; skips where it is absent."""
    if not (SHARED / "DESIGN.md").is_file():
        pytest.skip(f"needs the real data in {SHARED.name}/ beside the repository, which is absent")
    return SHARED


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> BuiltOnce:
    """Find a folder that the first process to ask builds; nobody changes it."""
    base = tmp_path_factory.getbasetemp()
    alone = "PYTEST_XDIST_WORKER" not in os.environ
    return BuiltOnce(base if alone else base.parent)


@pytest.fixture(scope="session")
def lite2_file(built_once: BuiltOnce) -> Path:
    """A real backbone as ONNX, EfficientNet-Lite2 on 192 × 192, padded as for 260 × 260."""
    from support.efficientnet import backbone_file

    return backbone_file(built_once)


@pytest.fixture(scope="session")
def checkpoint_files(built_once: BuiltOnce) -> dict[str, Path]:
    """Checkpoints `sgr` and `saf` of random weights, of `small_models.SGR` and `SAF`."""
    from support.small_models import SAF, SGR, write_checkpoint_file

    names = {"sgr": "small_SGR.pth.tar", "saf": "small_SAF.pth.tar"}

    def build(folder: Path) -> None:
        folder.mkdir()
        write_checkpoint_file(folder / names["sgr"], SGR, seed=1)
        write_checkpoint_file(folder / names["saf"], SAF, seed=2)

    folder = built_once("checkpoints", build)
    return {member: folder / name for member, name in names.items()}


@pytest.fixture(scope="session")
def vocabulary_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of the small models' size: `small_models.WORDS`."""
    from support.small_models import write_vocabulary_file

    return write_vocabulary_file(tmp_path_factory.mktemp("vocabulary") / "small_vocab.json")


@pytest.fixture(scope="session")
def exported(
    checkpoint_files: dict[str, Path], vocabulary_file: Path, built_once: BuiltOnce
) -> Bundle:
    """An SGRAF bundle of both checkpoints, in both precisions; nobody changes it."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    def build(target: Path) -> None:
        options = ExportOptions(vocabulary=vocabulary_file)
        export_bundle([*checkpoint_files.values()], target, options)

    return Bundle.open(built_once("small.sgraf", build))


@pytest.fixture(scope="session")
def spread(
    checkpoint_files: dict[str, Path], vocabulary_file: Path, built_once: BuiltOnce
) -> Bundle:
    """The same in fp32, with logits so far apart that members can be left out of many pairs."""
    import torch

    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    def build(target: Path) -> None:
        files = []
        for member, file in checkpoint_files.items():
            payload = torch.load(file, weights_only=False)
            similarity = payload["model"][2]
            similarity["sim_eval_w.weight"] *= 100
            similarity["sim_eval_w.bias"].mul_(100).add_(4)
            files.append(target.with_name(f"spread_{member}.pth.tar"))
            torch.save(payload, files[-1])
        options = ExportOptions(vocabulary=vocabulary_file, precisions=("fp32",))
        export_bundle(files, target, options)

    return Bundle.open(built_once("spread.sgraf", build))


@pytest.fixture(scope="session")
def backbone_file(built_once: BuiltOnce) -> Path:
    """A backbone that makes the regions that the small models take; see `tiny_backbone`."""
    from support.small_models import SGR
    from support.tiny_backbone import write_backbone

    def build(folder: Path) -> None:
        folder.mkdir()
        write_backbone(folder / "backbone.onnx", SGR.regions, SGR.img_dim)

    return built_once("backbone", build) / "backbone.onnx"


@pytest.fixture(scope="session")
def photographed(
    checkpoint_files: dict[str, Path],
    vocabulary_file: Path,
    backbone_file: Path,
    built_once: BuiltOnce,
) -> Bundle:
    """An SGRAF bundle in both precisions that takes photographs; nobody changes it."""
    from support.tiny_backbone import spec_of

    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    def build(target: Path) -> None:
        options = ExportOptions(vocabulary=vocabulary_file, extractor=spec_of(backbone_file))
        export_bundle([*checkpoint_files.values()], target, options)

    return Bundle.open(built_once("photos.sgraf", build))


@pytest.fixture(scope="session")
def second_sgr(built_once: BuiltOnce) -> Path:
    """An SGR of another seed, and of other dimensions where members need not agree."""
    from dataclasses import replace

    from support.small_models import SGR, write_checkpoint_file

    def build(folder: Path) -> None:
        folder.mkdir()
        config = replace(SGR, embed=24, sim_dim=12, sgr_steps=2)
        write_checkpoint_file(folder / "small_SGR.pth.tar", config, seed=3)

    return built_once("second", build) / "small_SGR.pth.tar"


@pytest.fixture(scope="session")
def three(
    checkpoint_files: dict[str, Path],
    second_sgr: Path,
    vocabulary_file: Path,
    built_once: BuiltOnce,
) -> Bundle:
    """An ensemble of two SGR of different seeds and a SAF in fp32; nobody changes it."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    def build(target: Path) -> None:
        paths = [checkpoint_files["sgr"], second_sgr, checkpoint_files["saf"]]
        options = ExportOptions(vocabulary=vocabulary_file, precisions=("fp32",))
        export_bundle(paths, target, options)

    return Bundle.open(built_once("three.sgraf", build))


@pytest.fixture(scope="session")
def combined(checkpoint_files: dict[str, Path], second_sgr: Path, built_once: BuiltOnce) -> Bundle:
    """The same ensemble in fp32 and fp16, with graphs of all members; nobody changes it."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    def build(target: Path) -> None:
        paths = [checkpoint_files["sgr"], second_sgr, checkpoint_files["saf"]]
        export_bundle(paths, target, ExportOptions(combined=True))

    return Bundle.open(built_once("combined.sgraf", build))


@pytest.fixture(scope="session")
def trained(shared: Path, built_once: BuiltOnce) -> Bundle:
    """The shared trained checkpoints, SGR and SAF, verified on their data; nobody changes it."""
    from sgraf_deploy.export.exporter import ExportOptions, export_bundle

    def build(target: Path) -> None:
        paths = [shared / "checkpoints" / f"f8k_{module}.pth.tar" for module in ("SGR", "SAF")]
        options = ExportOptions(
            vocabulary=shared / "data" / "f8k_precomp_vocab.json",
            gate_data=shared / "data" / "f8k_precomp",
        )
        export_bundle(paths, target, options)

    return Bundle.open(built_once("f8k.sgraf", build))


@pytest.fixture(scope="session")
def exported_fp8(
    checkpoint_files: dict[str, Path],
    vocabulary_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    built_once: BuiltOnce,
) -> Bundle:
    """SGRAF in fp32 and fp8 with a combined graph, whose R@K nobody compared; nobody changes it."""
    from support.export_splits import write_split

    from sgraf_deploy.export import exporter
    from sgraf_deploy.export.exporter import ExportOptions

    def unchecked(*_: object) -> dict[str, Any]:
        return {"on": "dev", "points": {}}

    def build(target: Path) -> None:
        folder = tmp_path_factory.mktemp("exported_fp8")
        write_split(folder, "dev", images=12)
        options = ExportOptions(
            vocabulary=vocabulary_file,
            precisions=("fp32", "fp8"),
            gate_data=folder,
            combined=True,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exporter, "gate_fp8", unchecked)
            exporter.export_bundle([*checkpoint_files.values()], target, options)

    return Bundle.open(built_once("small-fp8.sgraf", build))
