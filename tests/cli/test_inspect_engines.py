"""`sgraf-deploy inspect`: compiled plans as they lie there, whatever state they are in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.cli_world import World, done, line_naming, tree
from support.fake_cuda import FakeCuda
from support.fake_tensorrt import VERSION
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.gpu import Gpu
from sgraf_deploy.engines.trt import plan_list
from sgraf_deploy.engines.trt.library import Flavour, TensorRT
from sgraf_deploy.engines.trt.plan_list import Host, list_plans
from sgraf_deploy.engines.trt.plans import write_plan
from sgraf_deploy.engines.trt.rtx import CAPABILITIES

GPU = Gpu(FakeCuda.name, "9.0")
HERE = Host(TensorRT("tensorrt", VERSION, None), (GPU,))
GRAPHS = ("image_encoder", "text_encoder", "scorer", "pair_scorer")


@pytest.fixture
def made(world: World) -> TrtWorld:
    """Engines of the bundle in a folder beside it; there is no GPU."""
    world.monkeypatch.setattr(plan_list, "find_host", lambda: None)
    return TrtWorld(Bundle.open(world.bundle), world.folder / "engines")


def rows(world: World, *more: object) -> dict[str, str]:
    """The row of every plan, its further lines and the white space left out.

    A line about a plan, and no row, is a sentence: one space follows its name.
    """
    lines = done("inspect", world.bundle, *more).stdout.splitlines()
    return {
        line.split()[0]: " ".join(line.split()[1:])
        for line in lines
        if re.match(r"(sgr|saf)-fp\d+-\w+  ", line)
    }


def test_plans_are_listed_without_a_gpu(world: World, made: TrtWorld) -> None:
    made.build("fp16", verified=True)
    before = tree(world.folder)

    found = rows(world, "--engine-dir", made.folder)

    assert list(found) == [
        f"{member}-fp16-{graph}" for member in ("sgr", "saf") for graph in GRAPHS
    ]
    for row in found.values():
        assert row.startswith(f"tensorrt {VERSION} 9.0 ")
        assert row.endswith("not known here")
    assert "captions 3, words 20" in found["sgr-fp16-text_encoder"]
    size = made.made("sgr", "scorer", "fp16")[0].plan_bytes
    assert f"{size / 1e3:.1f} kB" in found["sgr-fp16-scorer"]
    assert tree(world.folder) == before


def test_every_profile_has_a_line(world: World, made: TrtWorld) -> None:
    made.build("fp16")
    shown = done("inspect", world.bundle, "--engine-dir", made.folder).stdout
    for sizes in ("images 4, captions 3", "images 7, captions 1", "images 1, captions 7"):
        assert shown.count(f"{sizes}, words 20") == 2


def test_what_was_verified_here_is_said(world: World, made: TrtWorld) -> None:
    made.build("fp16", verified=True)
    made.build("fp32", verified=False)
    world.monkeypatch.setattr(plan_list, "find_host", lambda: HERE)

    found = rows(world, "--engine-dir", made.folder)

    assert {name: row.split(" kB ")[-1].split(" MB ")[-1] for name, row in found.items()} == {
        f"{member}-{precision}-{graph}": state
        for member in ("sgr", "saf")
        for precision, state in (("fp16", "verified"), ("fp32", "not verified"))
        for graph in GRAPHS
    }


@pytest.mark.parametrize(
    ("host", "state"),
    [
        (Host(TensorRT("tensorrt", "0.1", None), (GPU,)), "not for this machine"),
        (Host(TensorRT("tensorrt-rtx", VERSION, None), (GPU,)), "not for this machine"),
        (
            Host(TensorRT("tensorrt", VERSION, None), (Gpu(GPU.name, "8.9"),)),
            "not for this machine",
        ),
        (Host(TensorRT("tensorrt", VERSION, None), (Gpu("another", "9.0"),)), "not verified"),
        (Host(TensorRT("tensorrt", VERSION, None), (Gpu("another", "8.9"), GPU)), "verified"),
        (None, "not known here"),
    ],
    ids=["version", "flavour", "capability", "gpu", "second-gpu", "none"],
)
def test_another_machine_is_told_apart(
    host: Host | None, state: str, world: World, made: TrtWorld
) -> None:
    made.build("fp16", verified=True)
    world.monkeypatch.setattr(plan_list, "find_host", lambda: host)

    assert {one.state for one in list_plans(made.bundle, made.folder)} == {state}


@pytest.mark.parametrize(
    ("compute_capability", "state", "names"),
    [
        ("8.9", "not verified", None),
        ("12.0", "not verified", None),
        ("7.5", "not for this machine", "pip install 'sgraf-deploy[tensorrt]'"),
        ("9.0", "not for this machine", "pip install 'sgraf-deploy[tensorrt]'"),
        ("10.0", "not for this machine", "pip install 'sgraf-deploy[tensorrt]'"),
    ],
)
def test_a_portable_plan_is_for_the_gpus_that_it_names(
    compute_capability: str, state: str, names: str | None, world: World, made: TrtWorld
) -> None:
    flavour: Flavour = "tensorrt-rtx"
    made.build("fp16", verified=False, flavour=flavour, compute_capabilities=CAPABILITIES)
    rtx = TensorRT(flavour, VERSION, None)
    host = Host(rtx, (Gpu(GPU.name, compute_capability),))
    world.monkeypatch.setattr(plan_list, "find_host", lambda: host)

    listed = list_plans(made.bundle, made.folder)
    output = done("inspect", world.bundle, "--engine-dir", made.folder).stdout

    assert {one.state for one in listed} == {state}
    (hint,) = {one.hint for one in listed}
    assert (hint or "").startswith(names or "")
    assert output.count("for this machine: ") == (names is not None)
    assert ", ".join(CAPABILITIES) in output


def truncate(made: TrtWorld, sidecar: Path) -> None:
    sidecar.write_bytes(sidecar.read_bytes()[:-40])


def alter(made: TrtWorld, sidecar: Path) -> None:
    value = json.loads(sidecar.read_text(encoding="utf-8"))
    sidecar.write_text(json.dumps(value | {"version": "9.9"}), encoding="utf-8")


def lose_the_plan(made: TrtWorld, sidecar: Path) -> None:
    (plan,) = sidecar.parent.glob(f"{sidecar.stem}-*.plan")
    plan.unlink()


def change_the_plan(made: TrtWorld, sidecar: Path) -> None:
    (plan,) = sidecar.parent.glob(f"{sidecar.stem}-*.plan")
    content = plan.read_bytes()
    plan.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def link_nowhere(made: TrtWorld, sidecar: Path) -> None:
    sidecar.unlink()
    sidecar.symlink_to("nothing.json")


def build_from_another_graph(made: TrtWorld, sidecar: Path) -> None:
    made.build_one("sgr", "scorer", "fp16", onnx_sha256="0" * 64)


def give_other_profiles(made: TrtWorld, sidecar: Path) -> None:
    other = made.made("sgr", "text_encoder", "fp16")[0].profiles
    made.build_one("sgr", "scorer", "fp16", profiles=other)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        alter,
        lose_the_plan,
        change_the_plan,
        link_nowhere,
        build_from_another_graph,
        give_other_profiles,
    ],
)
def test_a_damaged_plan_is_shown_as_such(damage: object, world: World, made: TrtWorld) -> None:
    made.build("fp16")
    damage(made, made.plans / "sgr-fp16-scorer.json")  # type: ignore[operator]
    world.monkeypatch.setattr(plan_list, "find_host", lambda: HERE)

    output = done("inspect", world.bundle, "--engine-dir", made.folder).stdout
    found = rows(world, "--engine-dir", made.folder)

    line_naming(output, "sgr-fp16-scorer", "sgraf-deploy compile")
    states = [row.split()[-1] == "unusable" for row in found.values()]
    assert (found["sgr-fp16-scorer"].split()[-1], sum(states), len(states)) == ("unusable", 1, 8)


def test_plans_inside_the_bundle_are_listed(world: World, made: TrtWorld) -> None:
    copy = world.copy()
    sidecar, plan = made.made("sgr", "scorer", "fp16")
    write_plan(copy / "engines", plan, sidecar)

    output = done("inspect", copy).stdout

    assert output.count("sgr-fp16-scorer") == 1
    assert "saf-fp16-scorer" not in output


def test_a_folder_that_is_a_link_is_said_to_be_one(world: World, made: TrtWorld) -> None:
    copy = world.copy()
    (copy / "engines").symlink_to(world.folder)

    line_naming(done("inspect", copy).stdout, copy / "engines", "--engine-dir")


def test_where_there_are_none(world: World, made: TrtWorld) -> None:
    nowhere = world.folder / "nowhere"
    assert rows(world) == rows(world, "--engine-dir", nowhere) == {}
    output = done("inspect", world.bundle, "--engine-dir", nowhere).stdout
    line_naming(output, nowhere)
