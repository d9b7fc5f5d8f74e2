"""`sgraf-deploy bench`: what it compares, what it refuses, and how it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.auto_engine import auto_engine
from support.cli_world import IMAGES, World, done, error_line, run
from support.small_models import SAF, SGR

from sgraf_deploy.bench import measure
from sgraf_deploy.bench.page import bench_page
from sgraf_deploy.bench.picture import comparison_svg
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.gpu import Driver, Gpu
from sgraf_deploy.engines.machine import Machine
from sgraf_deploy.engines.registry import ENGINES
from sgraf_deploy.errors import UnavailableError

ONCE = ("--repeats", 1, "--warmup", 0, "--threads", 1)
FEW = ("--images", 4, "--captions", 5, *ONCE)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products and galleries: the machine's speed is not what is tested."""
    monkeypatch.setattr(measure, "PRODUCTS", ((8, 8, 8),))
    monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (2, 5))
    monkeypatch.setattr("sgraf_deploy.bench.speed.SETTLE_SECONDS", 0)


def bench(*arguments: object) -> tuple[str, dict[str, Any]]:
    """Standard output and the report of a bench that meets its bounds."""
    stdout = done("bench", *arguments, "--json", "r.json").stdout
    return stdout, json.loads(Path("r.json").read_text(encoding="utf-8"))


def test_synthetic_inputs_have_no_recall(world: World) -> None:
    stdout, report = bench(world.bundle, *FEW, "--engine", "ort")

    assert "R@" not in stdout
    assert set(report["reference"].values()) == {None}
    (parities,) = report["parity"].values()
    assert [parity["model"] for parity in parities] == ["SGR", "SAF", "SGRAF"]
    assert {parity["deltas"] is None for parity in parities} == {True}
    assert report["run"]["bundle_sha256"] == Bundle.open(world.bundle).sha256
    assert (report["failed"], report["run"]["threads"]) == ([], 1)
    assert (report["throughput"]["images"], report["throughput"]["captions"]) == (4, 5)


def test_data_bring_recall(world: World) -> None:
    data = ("--data", world.data, "--split", "dev")
    stdout, report = bench(world.bundle, *data, *ONCE, "--engine", "ort", "--engine", "torch")

    assert f"{IMAGES} images × {5 * IMAGES} captions" in stdout
    assert set(report["parity"]) == {"ort fp32", "torch fp32"}
    for parities in report["parity"].values():
        for parity in parities:
            assert parity["recall"] == report["reference"][parity["model"]]
            assert set(parity["deltas"].values()) == {0.0}


def test_the_report_is_drawn(world: World) -> None:
    data = ("--data", world.data, "--split", "dev")
    _, report = bench(world.bundle, *data, *ONCE, "--engine", "ort", "--plot", "p.svg")

    assert Path("p.svg").read_text(encoding="utf-8") == comparison_svg(report)


def test_the_report_is_a_page(world: World) -> None:
    data = ("--data", world.data, "--split", "dev")
    _, report = bench(world.bundle, *data, *ONCE, "--engine", "ort", "--html", "p.html")

    assert Path("p.html").read_text(encoding="utf-8") == bench_page(report)


def test_the_papers_figures_stand_on_the_page_alone(world: World) -> None:
    result = run("bench", world.bundle, *FEW, "--dataset", "f30k")
    assert (result.exit_code, "--html" in error_line(result)) == (2, True)


def test_what_auto_takes_and_torch_are_compared(world: World) -> None:
    found = list(bench(world.bundle, *FEW)[1]["parity"])
    assert found == [f"{auto_engine()} fp32", "torch fp32"]


def test_the_precision_of_all_is_that_of_the_engines_that_name_none(world: World) -> None:
    engines = ("--engine", "auto", "--engine", "ort:fp32", "--precision", "fp16")
    result = run("bench", world.bundle, *FEW, *engines, "--json", "r.json")

    assert result.exit_code in (0, 1)  # random weights, half precision: bounded elsewhere
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert list(report["run"]["engines"]) == ["torch fp16-rounded", "ort fp32"]


def test_an_engine_has_its_own_precision(world: World) -> None:
    engines = ("--engine", "ort", "--engine", "torch:fp16", "--engine", "torch-reference")
    result = run("bench", world.bundle, *FEW, *engines, "--json", "r.json")

    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert result.exit_code in (0, 1)  # random weights, half precision: bounded elsewhere
    assert list(report["run"]["engines"]) == [
        "ort fp32",
        "torch fp16-rounded",
        "torch-reference fp32",
    ]


def test_a_missed_bound_is_shown_and_kept(world: World) -> None:
    world.monkeypatch.setattr("sgraf_deploy.evaluation.parity.FP32_LOGITS", -1.0)

    result = run("bench", world.bundle, *FEW, "--engine", "ort", "--json", "r.json")

    assert result.exit_code == 1
    assert "MISSED: logits" in result.stdout
    assert "ort fp32, SGR: logits" in error_line(result)
    assert len(json.loads(Path("r.json").read_text(encoding="utf-8"))["failed"]) == 3


def test_the_yardsticks_arithmetic_is_stated(world: World) -> None:
    stdout, report = bench(world.bundle, *FEW, "--engine", "ort")

    assert "literal loop: float32, TF32 off, cpu" in stdout
    stated = report["yardstick"]
    assert (stated["dtype"], stated["tf32"], stated["below_float32"]) == ("float32", False, [])
    assert (stated["device"], stated["device_name"], stated["cudnn"]) == ("cpu", None, None)
    assert list(report["throughput"]["scopes"]) == ["encode images", "encode captions", "score"]


def test_a_yardstick_that_was_not_exact_is_a_missed_bound(world: World) -> None:
    from sgraf_deploy.model import exact

    below = exact.Observed(("cuda rnn tf32",), cudnn=True)
    world.monkeypatch.setattr(exact, "observe", lambda: below)

    result = run("bench", world.bundle, *FEW, "--engine", "ort", "--json", "r.json")

    assert result.exit_code == 1
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert (len(report["failed"]), report["yardstick"]["tf32"]) == (1, True)
    assert "literal loop: float32, cuda rnn tf32, cpu" in result.stdout


def test_unstable_timings_are_warned_of(world: World) -> None:
    world.monkeypatch.setattr("sgraf_deploy.bench.run.UNSTABLE", -1.0)

    result = done("bench", world.bundle, *FEW, "--engine", "ort")

    assert "Warning: unstable timings" in result.stderr
    assert "the matrix product" in result.stderr


def test_ratios_whose_rounds_scatter_are_withheld(world: World) -> None:
    world.monkeypatch.setattr("sgraf_deploy.bench.measure.UNSTABLE_RATIO", float("inf"))
    stable, report = bench(world.bundle, *FEW, "--engine", "ort")
    assert "unstable" not in stable
    assert isinstance(report["throughput"]["engines"][1]["times_literal"], float)

    world.monkeypatch.setattr("sgraf_deploy.bench.measure.UNSTABLE_RATIO", -1.0)
    stdout, report = bench(world.bundle, *FEW, "--engine", "ort")

    _, speed = report["throughput"]["engines"]
    for found, names in (
        (speed, {"times_literal", "percent_of_product_rate"}),
        *(
            (one, {"times_floor", "times_literal", "tail_over_control"})
            for one in report["latency"]
        ),
    ):
        assert {found[name] for name in names} == {None}
        assert set(found["withheld"]) == names
    # Literal loop 1, engine 2, latencies of two galleries 3 each, and what the word means.
    assert stdout.count("unstable") == 1 + 2 + 2 * 3 + 1


@pytest.mark.filterwarnings("error")
def test_random_captions_are_like_real_ones(world: World) -> None:
    """No word of them is `<pad>`, and they begin and end with `<start>` and `<end>`."""
    assert "Caption" not in done("bench", world.bundle, *FEW, "--engine", "ort").stderr


def test_random_weights_need_no_bundle(world: World) -> None:
    world.monkeypatch.setattr(
        "sgraf_deploy.bench.random_model.model_config",
        lambda module: {"SGR": SGR, "SAF": SAF}[module],
    )

    stdout, report = bench("--random", "SAF", *FEW, "--engine", "ort")

    assert stdout.startswith("random-SAF.sgraf (SAF), random regions and ids")
    assert report["run"]["module"] == "SAF"
    assert [path.name for path in world.folder.iterdir()] == ["r.json"]


def test_the_only_bundle_here_is_taken(world: World) -> None:
    world.copy()

    assert done("bench", *FEW, "--engine", "ort").stdout.startswith("copy.sgraf (SGRAF)")


def test_of_several_bundles_none_is_guessed(world: World) -> None:
    for name in ("a.sgraf", "b.sgraf"):
        (world.folder / name).mkdir()

    assert "a.sgraf, b.sgraf" in error_line(run("bench"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--engine", "tensorflow"), ("torch-reference", "got tensorflow")),
        (("--engine", "ort:int8"), ("ort:fp32 or ort:fp16 or ort:fp8",)),
        (("--engine", "torch-reference:fp16"), ("expected precision fp32", "use --engine torch")),
        (("--random", "SGR"), ("--random", "no BUNDLE")),
        (("--data", "."), ("--data and --split", "both")),
        (("--split", "dev"), ("--data and --split", "both")),
        (("--limit-images", 3), ("--limit-images", "--data DIR")),
        (
            ("--data", ".", "--split", "dev", "--images", 3),
            ("--images and --captions", "no --data"),
        ),
        (("--json", "no/r.json"), ("--json no/r.json", "create it")),
        (("--plot", "no/p.svg"), ("--plot no/p.svg", "create it")),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_bad_input_is_one_line(
    world: World, arguments: tuple[object, ...], says: tuple[str, ...]
) -> None:
    result = run("bench", world.bundle, *arguments)

    assert result.exit_code == 2
    for part in says:
        assert part in error_line(result)


@pytest.mark.parametrize("command", [("bench", "--engine", "trt"), ("compile",)])
def test_without_tensorrt_one_line_says_what_to_install(
    world: World, command: tuple[str, ...]
) -> None:
    driver = Driver("13.0", (Gpu("GPU A", "9.0"),))
    world.monkeypatch.setattr("sgraf_deploy.engines.gpu.find_driver", lambda: driver)
    world.monkeypatch.setattr("sgraf_deploy.engines.trt.library.MODULES", ())
    result = run(*command, world.bundle)
    assert result.exit_code == 2
    assert "pip install 'sgraf-deploy[tensorrt]'" in error_line(result)


@pytest.mark.parametrize("engine", [name for name in ENGINES if ENGINES[name].devices[0] == "cuda"])
def test_without_a_gpu_one_line_says_what_works(world: World, engine: str) -> None:
    """Whatever else is missing, too."""
    absent = UnavailableError("no NVIDIA driver")
    world.monkeypatch.setattr("sgraf_deploy.engines.machine.Machine.no_gpu", lambda _: absent)
    result = run("bench", world.bundle, "--engine", engine, "--device", "cuda")
    assert result.exit_code == 2
    says = error_line(result)
    assert f"engine {engine} is not available: no NVIDIA driver" in says
    assert f"--engine {auto_engine()}" in says
    assert "sgraf-deploy compile" in says
    assert "sgraf-deploy bench gpu" in says


def test_machine_asks_the_driver_whether_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgraf_deploy.engines.gpu.find_driver", lambda: Driver("13.0", ()))
    assert Machine().no_gpu() is None

    def refuse() -> Driver:
        raise UnavailableError("no NVIDIA driver")

    monkeypatch.setattr("sgraf_deploy.engines.gpu.find_driver", refuse)
    absent = Machine().no_gpu()
    assert absent is not None
    assert absent.reason == "no NVIDIA driver"


def test_without_any_engine_one_line_says_what_to_install(world: World) -> None:
    for module in ("onnxruntime", "sgraf_deploy.engines.torch.engine"):
        world.monkeypatch.setitem(sys.modules, module, None)
    result = run("bench", world.bundle)
    assert result.exit_code == 2
    assert "no engine is available" in error_line(result)
    assert error_line(result).endswith("pip install 'sgraf-deploy[cpu]'")


def test_a_bundle_without_weights_names_the_option(world: World) -> None:
    result = run("bench", world.bare, *FEW, "--engine", "ort")

    assert result.exit_code == 2
    assert "--checkpoint FILE" in error_line(result)
    done("bench", world.bare, *FEW, "--engine", "ort", "--checkpoint", world.sgr)


def test_the_trained_bundle_is_within_its_bounds(trained: Bundle, shared: Path) -> None:
    data = ("--data", shared / "data" / "f8k_precomp", "--split", "dev", "--limit-images", 40)
    engines = ("--engine", "ort", "--engine", "torch:fp16")

    stdout = done("bench", trained.path, *data, *engines, "--repeats", 1, "--warmup", 0).stdout

    assert "MISSED" not in stdout
    assert "40 images × 200 captions" in stdout
