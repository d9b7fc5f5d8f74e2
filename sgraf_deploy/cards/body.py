"""The Markdown of a card: what the bundle is, how it is used, how it was checked, its limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import Manifest
from sgraf_deploy.cards.reports import EVAL_AGAIN, EvalReport, Gate, Measured
from sgraf_deploy.cards.text import markdown, markdown_table
from sgraf_deploy.evaluation.recall import RecallReport

_TIES = {
    "last": "a tied ground truth ranks last among its ties",
    "authors": "ties rank as the authors' unstable sort leaves them",
}
_USE = """\
```sh
pip install 'sgraf-deploy[cpu,hub]'
```

```python
import numpy as np
import sgraf_deploy

regions = np.load("regions.npy")  # (images, {regions}, {img_dim}) float32
with sgraf_deploy.load("hf://OWNER/NAME") as scorer:  # this repository; @COMMIT pins it
    print(scorer.bundle.source)
    images = scorer.encode_images(regions)
    best = scorer.rerank({query}, images, top_k=10)
```
"""


def body_lines(
    name: str, bundle: Bundle, gate: Gate, evaluations: Sequence[EvalReport]
) -> Iterator[str]:
    """The lines below the YAML block."""
    manifest = bundle.manifest
    yield f"# {markdown(name)}"
    yield ""
    yield from _what(bundle)
    yield from ("", "## Use", "")
    yield from _use(manifest)
    yield from ("", "## Ranks", "")
    yield from _ranks(evaluations)
    yield from ("", "## Parity", "")
    yield from _parity(gate)
    yield from ("", "## Limits", "")
    yield from _limits(manifest, gate, evaluations)
    yield from ("", "## Made with", "")
    yield from (f"- {markdown(tool)} {markdown(one)}" for tool, one in manifest.tools.items())


def _what(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    precisions = " and ".join(one.upper() for one in manifest.precisions)
    yield (
        f"{markdown(manifest.module)}, Similarity Graph Reasoning and Attention Filtration for "
        "image-text matching ([Diao et al., AAAI 2021](https://arxiv.org/abs/2101.01368)), as ONNX "
        f"graphs in {precisions}: it scores how well a caption fits an image, to rerank what a "
        "faster search found. Exported with `sgraf-deploy`, which compared every graph with the "
        "PyTorch reference."
    )
    yield ""
    header = (
        "member",
        "module",
        "images",
        "embed",
        "sim_dim",
        "checkpoint",
        "sha256",
        "trained on",
    )
    rows = []
    for key, member in manifest.members.items():
        config, source = member.config, member.checkpoint
        steps = f", {config.sgr_steps} steps" if config.sgr_steps else ""
        trained = "not said" if source.data_name is None else markdown(source.data_name)
        epoch = "" if source.epoch is None else f", epoch {source.epoch}"
        rows.append(
            (
                markdown(key),
                f"{config.module}{steps}",
                f"{config.regions} regions × {config.img_dim}",
                config.embed,
                config.sim_dim,
                markdown(source.file) + epoch,
                f"`{source.sha256}`",
                trained,
            )
        )
    yield from markdown_table(header, rows)
    yield ""
    words = f"{manifest.vocab_size:,}"
    if manifest.tokenizer is None:
        yield f"It takes token ids below {words}, no captions in words: it has no vocabulary."
    else:
        yield f"Its vocabulary has {words} words, tokenizer {markdown(manifest.tokenizer)}."
    yield f"The bundle's sha256 is `{bundle.sha256}`; it does not cover this card."


def _use(manifest: Manifest) -> Iterator[str]:
    query = "[1, 17, 9, 2]" if manifest.vocabulary is None else '"two dogs play in the snow"'
    text = _USE.replace("{regions}", str(manifest.regions)).replace("{query}", query)
    yield from text.replace("{img_dim}", str(manifest.img_dim)).splitlines()
    yield ""
    yield (
        "The graphs run in any ONNX runtime: `image_encoder.onnx`, `text_encoder.onnx`, and "
        "`scorer.onnx` for all pairs or `pair_scorer.onnx` for a list of them, in "
        + ", ".join(
            f"`{key}/{precision}/`"
            for key, one in manifest.members.items()
            for precision in one.graphs
        )
        + ". They give logits; a similarity is a logit's sigmoid, and an ensemble's is the mean of "
        "its members' similarities."
    )


def _ranks(evaluations: Sequence[EvalReport]) -> Iterator[str]:
    if not evaluations:
        yield f"R@K was not measured for this card; {EVAL_AGAIN}."
    for report in evaluations:
        run = report.run
        ties = next(iter(report.reports.values())).ties
        yield (
            f"Split {markdown(run.split)}: {run.images:,} images, {run.captions:,} captions, "
            f"{run.captions_per_image} of each image. Every image is scored with every caption, in "
            f"{markdown(run.executed)} by engine {markdown(run.engine)} on {markdown(run.device)}; "
            f"{_TIES[ties]}. R@K in percent, ranks count from 1."
        )
        yield ""
        yield from _recalls(report.reports)
        yield ""
        if report.folds:
            count = len(next(iter(report.folds.values())).folds)
            yield f"Mean of {count} folds of {run.images // max(count, 1):,} images:"
            yield ""
            yield from _recalls({model: one.mean for model, one in report.folds.items()})
            yield ""


def _recalls(reports: Mapping[str, RecallReport]) -> Iterator[str]:
    header = ("model", "direction", "R@1", "R@5", "R@10", "median rank", "mean rank", "rsum")
    rows = []
    for model, one in reports.items():
        for words, recall in (
            ("image to text", one.image_to_text),
            ("text to image", one.text_to_image),
        ):
            percent = [f"{value:.2f}" for value in (recall.r1, recall.r5, recall.r10)]
            ranks = [f"{recall.median_rank:.0f}", f"{recall.mean_rank:.2f}"]
            rows.append((markdown(model), words, *percent, *ranks, f"{one.rsum:.2f}"))
    yield from markdown_table(header, rows)


def _parity(gate: Gate) -> Iterator[str]:
    yield (
        "Largest difference from the PyTorch reference in float64, and its bound; an export that "
        f"misses one is not published. Measured on {markdown(gate.source)}."
    )
    yield ""
    rows = [
        (
            f"{markdown(member)} {markdown(precision)}",
            markdown(one.executor),
            *map(_bounded, (one.embeddings, one.logits, one.similarities)),
        )
        for member, precisions in gate.members.items()
        for precision, one in precisions.items()
    ]
    header = ("graphs", "executed by", "embeddings", "logits", "similarities")
    yield from markdown_table(header, rows)


def _bounded(one: Measured) -> str:
    return f"{one.value:.1e} ≤ {one.bound:.1e}"


def _limits(manifest: Manifest, gate: Gate, evaluations: Sequence[EvalReport]) -> Iterator[str]:
    executors = {one.executor for each in gate.members.values() for one in each.values()}
    yield (
        "Meant for reranking: sorting images for a caption, or captions for an image, among "
        "candidates. A similarity is no probability, and those of different models or bundles "
        "cannot be compared."
    )
    yield ""
    made = f"- Images are given as features of {manifest.regions} regions × {manifest.img_dim}"
    if manifest.extractor is None:
        yield (
            f"{made}, from the detector that the checkpoint was trained with: the bundle does not "
            "make them, and others rank near chance."
        )
    else:
        yield (
            f"{made}, or as photographs, of which the bundle's extractor makes them "
            f"(`Scorer.encode_photos`, recipe `{manifest.extractor.identity}`); features that were "
            "made in another way rank near chance. The licence of its models is theirs."
        )
    yield "- Words outside the vocabulary are one unknown word; captions are in its language."
    yield (
        "- It has the gaps and the bias of its training data, and must not be used to identify "
        "people or to decide about them."
    )
    ran = ", ".join(markdown(one) for one in sorted(executors)) or "nothing"
    engines = ", ".join(sorted({markdown(one.run.engine) for one in evaluations}))
    yield (
        f"- Not run for this card: anything but {ran} for parity"
        + (f" and engine {engines} for ranks" if engines else "")
        + "; TensorRT and other runtimes on a GPU compute values of their own, which "
        "`sgraf-deploy bench` compares."
    )
