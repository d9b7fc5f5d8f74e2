"""The front of a card, which the Hub reads: tags, licence, data, and results as a model index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sgraf_deploy.cards.reports import EvalReport, Gate
from sgraf_deploy.cards.text import yaml_lines
from sgraf_deploy.evaluation.recall import RecallReport

LIBRARY = "sgraf-deploy"
TAGS = (
    *("image-text-retrieval", "image-text-matching", "cross-modal-retrieval", "reranking"),
    *("sgraf", "onnx"),
)
TASK = {"type": "image-text-retrieval", "name": "Image-text retrieval"}
_NO_LICENCE = "# license: that of the checkpoint, such as apache-2.0; nobody has said which"
_NO_TASK = "# pipeline_tag: none; the Hub's list of tasks has no retrieval between images and texts"


def front_lines(
    name: str,
    gate: Gate,
    evaluations: Sequence[EvalReport],
    *,
    licence: str | None,
    dataset: str | None,
) -> Iterator[str]:
    """The lines of the YAML block, between its rules."""
    results = [_evaluated(one, dataset) for one in evaluations]
    results += [_checked(gate, member, precision) for member, precision in _graphs(gate)]
    front = {
        "library_name": LIBRARY,
        "license": licence,
        "tags": TAGS,
        "datasets": None if dataset is None else [dataset],
        "model-index": [{"name": name, "results": results}],
    }
    yield "---"
    if licence is None:
        yield _NO_LICENCE
    yield _NO_TASK
    yield from yaml_lines(front)
    yield "---"


def _evaluated(report: EvalReport, dataset: str | None) -> dict[str, Any]:
    """R@K of the whole bundle on one split."""
    run = report.run
    size = f"{run.images} images, {run.captions} captions"
    of = dataset or "precomp data"
    *_, (model, recalls) = report.reports.items()
    return {
        "task": TASK,
        "dataset": {
            "name": f"{of}, split {run.split}, {size}",
            "type": dataset or "precomp",
            "config": f"{run.executed} by engine {run.engine}",
            "split": run.split,
        },
        "metrics": list(_metrics(model, recalls)),
    }


def _metrics(model: str, report: RecallReport) -> Iterator[dict[str, Any]]:
    for direction in ("image_to_text", "text_to_image"):
        recall = getattr(report, direction)
        words = direction.replace("_", " ")
        for k in (1, 5, 10):
            value = round(getattr(recall, f"r{k}"), 4)
            yield {"type": f"recall_at_{k}", "value": value, "name": f"{model} {words} R@{k}"}
    yield {"type": "rsum", "value": round(report.rsum, 4), "name": f"{model} rsum"}


def _graphs(gate: Gate) -> Iterator[tuple[str, str]]:
    for member, precisions in gate.members.items():
        for precision in precisions:
            yield member, precision


def _checked(gate: Gate, member: str, precision: str) -> dict[str, Any]:
    """How far one member's graphs are from the reference."""
    found = gate.members[member][precision]
    measured = {"logits": found.logits, "similarities": found.similarities}
    return {
        "task": TASK,
        "dataset": {
            "name": gate.source,
            "type": "gate-inputs",
            "config": f"{member} {precision} by {found.executor}",
        },
        "metrics": [
            {
                "type": f"max_absolute_difference_of_{what}",
                "value": one.value,
                "name": f"largest difference of {what} from PyTorch in float64 (≤ {one.bound:g})",
            }
            for what, one in measured.items()
        ],
    }
