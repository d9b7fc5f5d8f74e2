"""A bundle's card: what the Hub's own reader makes of it, and what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cards.card import CardOptions, card_text
from sgraf_deploy.cards.reports import EvalReport, read_report
from sgraf_deploy.errors import BundleError, InputError

RECALL = {"r1": 13.9, "r5": 36.8, "r10": 52.8, "median_rank": 9.0, "mean_rank": 48.27}


def evaluation(bundle: Bundle, **run: Any) -> dict[str, Any]:
    """A report as `eval --json` writes it."""
    both = {"image_to_text": RECALL, "text_to_image": RECALL | {"r1": 11.5}}
    tied = {"ties": "last", "tied_image_to_text": 0, "tied_text_to_image": 1}
    report = {**both, "rsum": 204.6, "images": 20, "captions": 100, **tied}
    whole = {**report, "rsum": 210.25}
    described = {
        "bundle_sha256": bundle.sha256,
        "engine": "native",
        "executed": "fp32",
        "device": "cpu",
        "split": "test",
        "images": 20,
        "captions": 100,
        "captions_per_image": 5,
        "versions": {},
    }
    return {
        "run": described | run,
        "reports": {"SGR": report, "SAF": report, "SGRAF": whole},
        "folds": {"SGRAF": {"folds": [report, report], "mean": {**report, "rsum": 199.125}}},
        "seconds": {"score": 1.0},
    }


def of(bundle: Bundle, **run: Any) -> EvalReport:
    return EvalReport.of(json.loads(json.dumps(evaluation(bundle, **run))))


def read(text: str) -> Any:
    """The card's metadata, as the Hub's own reader has it: it raises for what it cannot read."""
    return ModelCard(text).data


def results(text: str) -> dict[str, list[EvalResult]]:
    """The model index by the kind of its data."""
    found: dict[str, list[EvalResult]] = {}
    for one in read(text).eval_results:
        found.setdefault(one.dataset_type, []).append(one)
    return found


def test_the_hub_reads_what_it_needs_of_it(exported: Bundle) -> None:
    data = read(card_text(exported, "small.sgraf"))
    assert data.model_name == "small.sgraf"
    assert data.library_name == "sgraf-deploy"
    assert {"onnx", "image-text-retrieval"} <= set(data.tags)
    assert (data.license, data.datasets, data.pipeline_tag) == (None, None, None)


def test_the_parity_report_is_in_the_model_index(exported: Bundle) -> None:
    found = results(card_text(exported, "small.sgraf"))
    assert set(found) == {"gate-inputs"}
    index = {
        (one.dataset_config, one.metric_type): one.metric_value for one in found["gate-inputs"]
    }
    assert len(index) == 8
    for member, precisions in exported.manifest.parity["members"].items():
        for precision, report in precisions.items():
            config = f"{member} {precision} by {report['executor']}"
            for what in ("logits", "similarities"):
                kind = f"max_absolute_difference_of_{what}"
                assert index[config, kind] == report[what]["value"]


def test_evaluations_are_in_the_model_index_and_in_tables(exported: Bundle) -> None:
    reports = [of(exported), of(exported, split="dev", executed="fp16")]
    text = card_text(exported, "x", reports, CardOptions("mit", "someone/flickr"))
    data = read(text)
    assert (data.license, data.datasets) == ("mit", ["someone/flickr"])
    found = [one for one in data.eval_results if one.dataset_type == "someone/flickr"]
    assert len(found) == 2 * 7
    values = {(one.dataset_split, one.metric_name): one.metric_value for one in found}
    assert values["test", "SGRAF rsum"] == 210.25
    assert values["dev", "SGRAF image to text R@1"] == 13.9
    assert values["test", "SGRAF text to image R@1"] == 11.5
    rows = [line for line in text.splitlines() if line.startswith("| SGRAF | image to text")]
    assert [row.split(" | ")[-1] for row in rows] == ["210.25 |", "199.12 |"] * 2


def test_it_says_what_the_bundle_is(exported: Bundle) -> None:
    body = ModelCard(card_text(exported, "small.sgraf")).text
    for member in exported.manifest.members.values():
        assert member.checkpoint.sha256 in body
        assert member.checkpoint.file.replace("_", "\\_") in body
    assert exported.sha256 in body
    assert "hf://OWNER/NAME" in body
    assert f"{exported.manifest.regions}, {exported.manifest.img_dim})" in body


def test_it_says_whether_the_bundle_takes_photographs(
    exported: Bundle, photographed: Bundle
) -> None:
    made = photographed.manifest.extractor
    assert made is not None
    assert made.identity in card_text(photographed, "photos.sgraf")
    assert "encode_photos" not in card_text(exported, "small.sgraf")


def test_hostile_texts_stay_texts(exported: Bundle) -> None:
    evil = "x\n---\nlicense: theirs\n---\n<script>`|[a](http://b)"
    manifest = exported.manifest
    member = manifest.members["sgr"]
    source = replace(member.checkpoint, data_name=evil, file=evil)
    members = {**manifest.members, "sgr": replace(member, checkpoint=source)}
    parity = {**manifest.parity, "source": evil}
    changed = replace(manifest, members=members, parity=parity, tools={evil: evil}, tokenizer=evil)
    bundle = Bundle(exported.path, changed, exported.sha256)
    report = EvalReport.of(evaluation(exported, split=evil, engine=evil, device=evil))
    renamed = replace(report, reports={evil: report.reports["SGR"]})

    text = card_text(bundle, evil, [renamed])

    body = ModelCard(text).text
    plain = card_text(exported, "x", [of(exported)])
    assert set(read(text).to_dict()) == set(read(plain).to_dict())
    assert read(text).license is None
    assert "<script>" not in body
    assert len(text.splitlines()) <= len(plain.splitlines())
    assert "](http://b)" not in body


def test_the_report_of_another_bundle_is_refused(exported: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(evaluation(exported, bundle_sha256="0" * 64)))
    with refused(
        InputError,
        path,
        "--eval-json",
        expected=naming(exported.sha256),
        got=naming("0" * 64),
        hint="sgraf-deploy eval",
    ):
        read_report(path, exported)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda report: report.pop("run"), "run"),
        (lambda report: report["run"].pop("split"), "split"),
        (lambda report: report["run"].update(images="many"), "images"),
        (lambda report: report.update(reports={}), "reports"),
        (lambda report: report["reports"]["SGR"].pop("rsum"), "SGR.rsum"),
        (lambda report: report["folds"]["SGRAF"].update(mean=3), "SGRAF.mean"),
    ],
)
def test_what_is_no_report_is_refused(
    exported: Bundle, tmp_path: Path, change: Any, place: str
) -> None:
    report = json.loads(json.dumps(evaluation(exported)))
    change(report)
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(report))
    with refused(InputError, path, place, hint="sgraf-deploy eval"):
        read_report(path, exported)


@pytest.mark.parametrize("content", [None, "", "[1]", "not json"])
def test_what_cannot_be_read_is_refused(
    exported: Bundle, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "eval.json"
    if content is not None:
        path.write_text(content)
    with refused(InputError, path, hint="sgraf-deploy eval"):
        read_report(path, exported)


def test_a_parity_report_that_is_none_is_refused(exported: Bundle) -> None:
    broken = replace(exported.manifest, parity={"source": "x", "members": {"sgr": {"fp32": {}}}})
    with refused(BundleError, exported.path, "executor"):
        card_text(Bundle(exported.path, broken, exported.sha256), "x")


@pytest.mark.parametrize(
    "wrong",
    [{"licence": "MIT License"}, {"licence": "a\nb"}, {"dataset": "a/b/c"}, {"dataset": ""}],
)
def test_what_is_no_identifier_is_refused(wrong: dict[str, str]) -> None:
    option = {"licence": "--license", "dataset": "--dataset"}[next(iter(wrong))]
    with refused(InputError, option):
        CardOptions(**wrong)
