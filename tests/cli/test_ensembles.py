"""The command line on an ensemble of two SGR of different seeds and a SAF."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_world import IMAGES, World, done, line_naming, recall_rows, refused_line, run

import sgraf_deploy
from sgraf_deploy.bench import measure
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.engines.ensemble import combine_logits
from sgraf_deploy.errors import BundleError, CheckpointError
from sgraf_deploy.evaluation import recall

MODELS = ["SGR", "SGR-2", "SAF", "ENSEMBLE"]
ONCE = ("--repeats", 1, "--warmup", 0, "--threads", 1)


def expected_logits(world: World, bundle: Bundle) -> dict[str, np.ndarray[Any, Any]]:
    """The logits by model, straight from the scorer."""
    split = open_precomp(world.data, "dev")
    with sgraf_deploy.load(bundle, engine="ort") as scorer:
        members = scorer.logits(split.regions, split.captions)
    together = combine_logits(*members.values())
    return dict(zip(MODELS, [*members.values(), together], strict=True))


def test_export_takes_any_number_of_checkpoints(world: World, second_sgr: Path) -> None:
    more = ("--vocab", world.vocabulary, "--precision", "fp32")

    result = done("export", world.sgr, world.saf, second_sgr, *more)

    bundle = Bundle.open("small.sgraf")
    assert bundle.verify_files() == ()
    assert bundle.manifest.module == "2×SGR + SAF"
    sources = {name: member.checkpoint.file for name, member in bundle.manifest.members.items()}
    assert sources == {"sgr": world.sgr.name, "sgr-2": second_sgr.name, "saf": world.saf.name}
    line_naming(result.stdout, "small.sgraf", "2×SGR + SAF", "fp32")
    for member in sources:
        assert re.search(rf"^{member} +fp32 .* ≤ .* ≤ .* ≤ ", result.stdout, re.MULTILINE)
    for number in (1, 2, 3):
        line_naming(result.stderr, number, 3)


def test_inspect_and_verify_name_every_member(three: Bundle) -> None:
    inspected = done("inspect", three.path).stdout
    lines = [" ".join(line.split()) for line in inspected.splitlines()]
    assert lines[0] == line_naming(lines[0], three.path, "2×SGR + SAF")
    for member, embed in (("sgr", 32), ("sgr-2", 24), ("saf", 32)):
        line_naming(inspected, member, 7, 64, embed)
    assert any(line.startswith("sgr + saf image_encoder regions") for line in lines)
    assert any(line.startswith("sgr-2 image_encoder regions") for line in lines)
    sizes = lines.index(line_naming("\n".join(lines), *GRAPHS))
    named = [line.split(" fp32 ")[0] for line in lines[sizes + 2 : sizes + 5]]
    assert named == ["sgr", "sgr-2", "saf"]
    # Embeddings of 7 regions and one global vector, and the regions' products, in float32.
    embeds = 2 * 32 + 24
    size = 4 * (8 * embeds + 3 * 7 * 7)
    line_naming(inspected, "fp32", f"{size:,}", 4 * embeds)
    assert json.loads(done("inspect", three.path, "--json").stdout) == three.manifest.to_json()

    verified = done("verify", three.path).stdout
    assert verified.splitlines()[-1] == line_naming(verified, three.path)
    assert all(f"\n{member} fp32" in verified for member in ("sgr", "sgr-2", "saf"))


def test_a_damaged_second_member_fails_the_gate(world: World, three: Bundle) -> None:
    bundle = world.copy(three.path)
    source, target = (bundle / name / "fp32" / "scorer.onnx" for name in ("sgr", "sgr-2"))
    target.write_bytes(source.read_bytes())

    refused_line(run("verify", bundle), BundleError, "sgr-2/fp32/scorer.onnx", hint="--force")


def test_eval_reports_every_member_and_the_ensemble(world: World, three: Bundle) -> None:
    more = ("--data", world.data, "--split", "dev", "--json", "r.json", "--folds", 2)

    stdout = done("eval", three.path, *more).stdout

    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert (report["run"]["module"], report["run"]["members"]) == (
        "2×SGR + SAF",
        ["sgr", "sgr-2", "saf"],
    )
    logits = expected_logits(world, three)
    assert list(report["reports"]) == list(report["folds"]) == MODELS
    for model, matrix in logits.items():
        assert report["reports"][model] == recall.evaluate(matrix).to_json()
    first = stdout.splitlines()[0]
    assert first == line_naming(first, "three.sgraf", "2×SGR + SAF", "sgr", "sgr-2", "saf")
    line_naming(stdout, 180, "SGR", "SGR-2", "SAF")
    assert set(recall_rows(stdout)) == {
        f"{name} {of}" for name in (*MODELS, "chance") for of in "it"
    }


def test_rerank_ranks_by_the_ensemble(world: World, three: Bundle) -> None:
    more = ("--data", world.data, "--split", "dev", "--image", 2, "--top-k", 4)

    stdout = done("rerank", three.path, *more).stdout

    logits = expected_logits(world, three)["ENSEMBLE"][2]
    rows = [line.split() for line in stdout.splitlines() if re.match(r" +\d", line)]
    assert [int(row[3]) for row in rows] == np.argsort(-logits, kind="stable")[:4].tolist()


def test_bench_holds_every_model_to_its_bounds(world: World, three: Bundle) -> None:
    world.monkeypatch.setattr(measure, "PRODUCTS", ((8, 8, 8),))
    world.monkeypatch.setattr("sgraf_deploy.bench.latency.CANDIDATES", (2,))
    world.monkeypatch.setattr("sgraf_deploy.bench.speed.SETTLE_SECONDS", 0)
    engines = ("--engine", "native", "--engine", "ort", "--engine", "torch")
    more = ("--data", world.data, "--split", "dev", *ONCE, "--json", "r.json")

    stdout = done("bench", three.path, *more, *engines).stdout

    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert list(report["reference"]) == MODELS
    assert len(report["parity"]) == 3
    for parities in report["parity"].values():
        assert [parity["model"] for parity in parities] == MODELS
        assert all(parity["largest_similarity"] <= 1e-5 for parity in parities)
    assert report["failed"] == []
    line_naming(stdout, IMAGES, 5 * IMAGES)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_without_references_checkpoints_find_their_members(
    world: World, three: Bundle, second_sgr: Path, order: tuple[int, ...]
) -> None:
    paths = [world.sgr, second_sgr, world.saf]
    bare = ("--vocab", world.vocabulary, "--precision", "fp32", "--no-reference")
    done("export", *paths, *bare, "-o", "bare.sgraf")
    given = [word for place in order for word in ("--checkpoint", paths[place])]
    more = ("--data", world.data, "--split", "dev", "--json", "r.json", "--engine", "torch")

    done("eval", "bare.sgraf", *more, *given)

    report = json.loads(Path("r.json").read_text(encoding="utf-8"))["reports"]
    for model, matrix in expected_logits(world, three).items():
        assert report[model] == recall.evaluate(matrix).to_json()
    done("verify", "bare.sgraf", *given)
    lacking = run("verify", "bare.sgraf", "--checkpoint", world.sgr, "--checkpoint", world.saf)
    refused_line(lacking, CheckpointError, "sgr-2", hint="--checkpoint")
