"""`export --card`, `eval --json` and `card`: from a checkpoint to a page with R@K."""

from __future__ import annotations

import json

from huggingface_hub import ModelCard
from support.cli_world import World, done, refused_line, run
from support.refusals import naming

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import BundleError, InputError


def test_a_card_gets_its_ranks_after_the_export(world: World) -> None:
    done(
        "export",
        *world.checkpoints.values(),
        "--vocab",
        world.vocabulary,
        "-o",
        "a.sgraf",
        "--card",
    )
    folder = world.folder / "a.sgraf"
    first = ModelCard.load(folder / "README.md").data
    assert first.model_name == "a.sgraf"
    done("eval", folder, "--data", world.data, "--split", "dev", "--json", "eval.json")

    done("card", folder, "--eval-json", "eval.json", "--license", "apache-2.0")

    data = ModelCard.load(folder / "README.md").data
    report = json.loads((world.folder / "eval.json").read_text())["reports"]["SGRAF"]
    rsum = [one.metric_value for one in data.eval_results if one.metric_type == "rsum"]
    assert rsum == [round(report["rsum"], 4)]
    assert data.license == "apache-2.0"
    assert "README.md" not in done("verify", folder).stderr
    done("export", *world.checkpoints.values(), "-o", "a.sgraf", "--force")
    assert not (folder / "README.md").exists()


def test_an_edited_card_is_kept(world: World) -> None:
    done("export", world.checkpoints["sgr"], "-o", "a.sgraf", "--card", "--precision", "fp32")
    path = world.folder / "a.sgraf" / "README.md"
    path.write_text("mine")
    refused_line(run("card", "a.sgraf"), BundleError, path, hint="--force")
    command = ("export", world.checkpoints["sgr"], "-o", "a.sgraf", "--force")
    refused_line(run(*command), BundleError, path.parent, got=naming("README.md"))
    assert path.read_text() == "mine"
    done("card", "a.sgraf", "--force")
    assert ModelCard.load(path).data.model_name == "a.sgraf"


def test_the_report_of_another_bundle_is_refused(world: World) -> None:
    done("eval", world.bundle, "--data", world.data, "--split", "dev", "--json", "eval.json")
    result = run("card", world.bare, "--eval-json", "eval.json")
    expected = naming(Bundle.open(world.bare).sha256)
    refused_line(result, InputError, "eval.json", expected=expected, hint="sgraf-deploy eval")
    assert not (world.bare / "README.md").exists()


def test_ranks_on_the_gates_data_stand_in_the_card_at_once(world: World) -> None:
    vocabulary = ("--vocab", world.vocabulary, "--gate-data", world.data)
    done("export", world.checkpoints["saf"], *vocabulary, "-o", "a.sgraf", "--card")
    data = ModelCard.load(world.folder / "a.sgraf" / "README.md").data
    assert "dev" in {one.dataset_split for one in data.eval_results}


def test_what_was_fetched_from_the_hub_is_left_as_it_is(world: World) -> None:
    result = run("card", "hf://someone/f8k.sgraf")
    refused_line(result, InputError, "BUNDLE", hint="hf download")
