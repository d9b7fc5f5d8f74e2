"""The gate's shapes and bounds, on graphs that look up what the reference says.

`tests/export/test_gate.py` runs it on graphs of ONNX, damaged in every way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import naming, refused

from sgraf_deploy.config import GraphName, Precision
from sgraf_deploy.errors import GateError
from sgraf_deploy.gate import values as gate
from sgraf_deploy.gate.inputs import GateInputs, GateReference
from sgraf_deploy.gate.values import Arrays, Run, check_values

IMAGES, CAPTIONS, REGIONS, EMBED = 3, 4, 2, 2
LENGTHS = np.array([3, 2, 5, 4], np.int32)
WORDS = 5
REAL = np.arange(WORDS) < LENGTHS[:, None]  # (captions, words)


def eighths(*shape: int) -> NDArray[np.float32]:
    """0, 1/8, 2/8, …: no two rows alike."""
    return np.asarray(np.arange(np.prod(shape)).reshape(shape) / 8, np.float32)


INPUTS = GateInputs(
    regions=np.tile(np.arange(IMAGES, dtype=np.float32)[:, None, None], (1, REGIONS, 1)),
    token_ids=np.where(REAL, np.arange(CAPTIONS, dtype=np.int32)[:, None] + 1, 0),
    lengths=LENGTHS,
    source="noise",
    real=False,
)
REFERENCE = GateReference(
    region_embeddings=eighths(IMAGES, REGIONS, EMBED) / np.float32(2),
    image_global=eighths(IMAGES, EMBED),
    word_embeddings=np.where(REAL[..., None], np.array([0.25, -0.5], np.float32), np.float32(0)),
    text_global=eighths(CAPTIONS, EMBED),
    logits=np.array([[8.0, -1, 0, 2], [0.5, -16, 4, 1], [3, -2, -4, -0.25]]),
)
DEVIATION = float(REFERENCE.logits.std())

SHAPES = [
    *("image_encoder 1", "image_encoder 3"),
    *("text_encoder 1×2", "text_encoder 1×6", "text_encoder 4×6", "text_encoder 4×5"),
    *("scorer 1×1+0", "scorer 1×1+3", "scorer 1×4+1", "scorer 3×4+0"),
    *("pair_scorer 1", "pair_scorer 6"),
]


@dataclass
class Member:
    """Graphs that know their inputs again, and give what `reference` has for them, altered.

    `alter` is given the run's place in the gate's order, the output's name and its values.
    """

    reference: GateReference = REFERENCE
    gram: bool = False
    alter: Callable[[int, str, NDArray[Any]], NDArray[Any]] = lambda run, name, values: values
    runs: list[tuple[GraphName, Arrays]] = field(default_factory=list)

    def check(self, precision: Precision = "fp32", **inputs: Any) -> dict[str, Any]:
        graphs: dict[GraphName, Callable[[Arrays], Arrays]] = {
            "image_encoder": self._image_encoder,
            "text_encoder": self._text_encoder,
            "scorer": self._scorer,
            "pair_scorer": self._pair_scorer,
        }
        runs = {name: self._recorded(name, graph) for name, graph in graphs.items()}
        return check_values(runs, precision, replace(INPUTS, **inputs), self.reference, "sgr-2")

    def _recorded(self, name: GraphName, graph: Callable[[Arrays], Arrays]) -> Run:
        def run(inputs: Arrays) -> Arrays:
            self.runs.append((name, inputs))
            place = len(self.runs) - 1
            return {name: self.alter(place, name, out) for name, out in graph(inputs).items()}

        return run

    def _image_encoder(self, inputs: Arrays) -> Arrays:
        rows = inputs["regions"][:, 0, 0].astype(int)
        names = ("region_embeddings", "image_global", *(("region_gram",) if self.gram else ()))
        return {name: getattr(self.reference, name)[rows] for name in names}

    def _text_encoder(self, inputs: Arrays) -> Arrays:
        ids, lengths = inputs["token_ids"], inputs["lengths"]
        rows = ids[:, 0] - 1
        assert lengths.tolist() == LENGTHS[rows].tolist()
        assert ((ids != 0).sum(axis=1) == lengths).all()
        words = np.zeros((*ids.shape, EMBED), np.float32)
        words[:, :WORDS] = self.reference.word_embeddings[rows][:, : ids.shape[1]]
        return {"word_embeddings": words, "text_global": self.reference.text_global[rows]}

    def _scorer(self, inputs: Arrays) -> Arrays:
        images, captions = self._known(inputs)
        return {"logits": self.reference.logits[images][:, captions].astype(np.float32)}

    def _pair_scorer(self, inputs: Arrays) -> Arrays:
        assert [len(rows) for rows in self._known(inputs)] == [IMAGES, CAPTIONS]
        images, captions = inputs["image_index"], inputs["caption_index"]
        assert images.dtype == captions.dtype == np.int32
        assert images.shape == captions.shape
        return {"logits": self.reference.logits[images, captions].astype(np.float32)}

    def _known(self, inputs: Arrays) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of the images and captions, all of whose arrays belong together."""
        images = find(self.reference.image_global, inputs["image_global"])
        captions = find(self.reference.text_global, inputs["text_global"])
        assert ("region_gram" in inputs) == self.gram
        for name in ("region_embeddings", *(("region_gram",) if self.gram else ())):
            assert alike(inputs[name], getattr(self.reference, name)[images])
        assert inputs["lengths"].tolist() == LENGTHS[captions].tolist()
        words = inputs["word_embeddings"]
        longest = LENGTHS[captions].max()
        assert alike(words[:, :longest], self.reference.word_embeddings[captions][:, :longest])
        assert not words[:, longest:].any()
        return images, captions


def find(rows: NDArray[np.float32], some: NDArray[np.float32]) -> NDArray[np.int64]:
    """The place among `rows` of each of some rows, of which one value may be a little off."""
    places: NDArray[np.int64] = np.abs(some[:, None] - rows).sum(axis=2).argmin(axis=1)
    return places


def alike(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.shape == right.shape and np.allclose(left, right, rtol=0, atol=0.02)


def moved(place: tuple[int, ...], by: float, output: str = "logits") -> Member:
    """A member one of whose values is not the reference's, whatever runs give it."""
    other = getattr(REFERENCE, output).astype(np.float64)
    other[place] += by
    wrong = replace(REFERENCE, **{output: other.astype(getattr(REFERENCE, output).dtype)})
    return Member(alter=lambda run, name, values: same_shape(wrong, name, values))


def same_shape(wrong: GateReference, name: str, values: NDArray[Any]) -> NDArray[Any]:
    """The altered values of outputs that hold all there is; others stay as they are."""
    other = getattr(wrong, name)
    return other.astype(values.dtype) if other.shape == values.shape else values


@pytest.mark.parametrize("gram", [True, False])
def test_what_equals_the_reference_passes_at_every_shape(gram: bool) -> None:
    member = Member(gram=gram)
    largest = float(REFERENCE.region_embeddings.max())
    assert largest < 1
    assert member.check() == {
        "shapes": SHAPES,
        "embeddings": {"value": 0.0, "bound": 1e-5},
        "similarities": {"value": 0.0, "bound": 1e-5},
        "logits": {"value": 0.0, "bound": 1e-4},
        "logits_std": DEVIATION,
    }
    assert [f"{name} {padding_of(name, inputs)}" for name, inputs in member.runs] == [
        *("image_encoder [0]", "image_encoder [0, 1, 2]"),
        *("text_encoder [2, 2]", "text_encoder [5, 6]", "text_encoder [5, 6]"),
        "text_encoder [5, 5]",
        *("scorer [2, 2]", "scorer [2, 5]", "scorer [5, 6]", "scorer [5, 5]"),
        *("pair_scorer [5, 5]", "pair_scorer [5, 5]"),
    ]
    assert member.runs[8][1]["image_global"].tolist() == REFERENCE.image_global[-1:].tolist()
    assert {0, 1, 2} == {int(row) for _, run in member.runs[-2:] for row in run["image_index"]}
    assert 0 in {int(row) for _, run in member.runs[-2:] for row in run["caption_index"]}
    again = Member(gram=gram)
    again.check()
    for (_, left), (_, right) in zip(member.runs, again.runs, strict=True):
        assert all(np.array_equal(left[name], right[name]) for name in left | right)


def padding_of(name: GraphName, inputs: Arrays) -> list[int]:
    """The images of a run, or its longest caption and how many words that is padded to."""
    if name == "image_encoder":
        return [int(row) for row in inputs["regions"][:, 0, 0]]
    words = inputs["token_ids" if name == "text_encoder" else "word_embeddings"]
    return [int(inputs["lengths"].max()), words.shape[1]]


@pytest.mark.parametrize(
    ("output", "largest", "scale"),
    [("region_embeddings", 40.0, 40.0), ("word_embeddings", -40.0, 40.0), ("text_global", 40.0, 1)],
)
@pytest.mark.parametrize(("precision", "share"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_embeddings_are_bounded_by_the_largest(
    output: str, largest: float, scale: float, precision: Precision, share: float
) -> None:
    values = getattr(REFERENCE, output).copy()
    values[0, 0] = largest
    report = Member(replace(REFERENCE, **{output: values})).check(precision)
    assert report["embeddings"]["bound"] == pytest.approx(scale * share, rel=1e-9)


@pytest.mark.parametrize(
    ("place", "output", "bound", "named"),
    [
        ((2, 1), "image_global", 1e-5, "embeddings"),
        ((1, 1, 1), "region_embeddings", 1e-5, "embeddings"),
        ((3, 1), "text_global", 1e-5, "embeddings"),
        ((2, 3, 0), "word_embeddings", 1e-5, "embeddings"),
        ((1, 1), "logits", 16e-4, "logits"),
        ((0, 0), "logits", 8e-4, "logits"),
        ((0, 2), "logits", 4e-5, "similarities"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_in_fp32_each_bound_is_met_just_below_it(
    place: tuple[int, ...], output: str, bound: float, named: str, sign: int
) -> None:
    report = moved(place, sign * 0.9 * bound, output).check()
    assert report[named]["value"] == pytest.approx(0.9 * report[named]["bound"], rel=0.05)
    with refused(GateError, "sgr-2", named, hint=None) as caught:
        moved(place, sign * 1.1 * bound, output).check()
    assert float(str(caught.error.got)) == pytest.approx(1.1 * report[named]["bound"], rel=0.05)
    naming(f"{report[named]['bound']:.3g}").check("expected", caught.error.expected)


def test_up_to_one_the_difference_of_logits_is_not_divided() -> None:
    assert moved((1, 0), 2e-5).check()["logits"]["value"] == pytest.approx(2e-5, rel=1e-2)


@pytest.mark.parametrize(
    ("precision", "real", "share", "option"),
    [
        ("fp16", False, 0.05, "--precision fp32"),
        ("fp16", True, 0.01, "--precision fp32"),
        ("fp8", False, 0.02, "--precision fp16"),
        ("fp8", True, 0.02, "--precision fp16"),
    ],
)
def test_below_fp32_logits_are_bounded_by_their_deviation(
    precision: Precision, real: bool, share: float, option: str
) -> None:
    member = moved((1, 1), -0.9 * share * DEVIATION)  # Where no similarity moves, and no rank.
    member.reference = replace(REFERENCE, fp8_logits=REFERENCE.logits)
    report = member.check(precision, real=real)
    assert report["logits"]["bound"] == pytest.approx(share * DEVIATION)
    assert report["logits"]["value"] == pytest.approx(0.9 * share * DEVIATION, rel=1e-3)
    assert report["similarities"]["bound"] == 2e-3
    assert report["spearman"]["value"] == pytest.approx(1.0)
    assert report["spearman"]["bound"] == (0.9999 if real else None)
    member = moved((1, 1), -1.1 * share * DEVIATION)
    member.reference = replace(REFERENCE, fp8_logits=REFERENCE.logits)
    with refused(GateError, "sgr-2", "logits", hint=option):
        member.check(precision, real=real)


def test_fp8_is_held_to_what_rounds_alike() -> None:
    rounded = replace(REFERENCE, logits=REFERENCE.logits + 1, fp8_logits=REFERENCE.logits)
    right = Member(rounded, alter=lambda run, name, values: values - (name == "logits"))
    assert right.check("fp8")["logits"]["value"] == 0.0
    with refused(GateError, "sgr-2", "logits"):
        right.check("fp16")


@pytest.mark.parametrize("real", [True, False])
def test_of_real_data_the_order_of_the_logits_counts(real: bool) -> None:
    """Two logits far from zero, as far from each other as almost nothing, change places."""
    logits = REFERENCE.logits.copy()
    logits[0, :2] = 10, 10.001
    reference = replace(REFERENCE, logits=logits)
    swapped = replace(reference, logits=logits[:, [1, 0, 2, 3]].copy())
    swapped.logits[1:] = logits[1:]
    member = Member(reference, alter=lambda run, name, values: same_shape(swapped, name, values))
    if real:
        with refused(GateError, "sgr-2", expected=naming(0.9999), hint="--precision fp32") as found:
            member.check("fp16", real=True)
        assert 0.98 < float(str(found.error.got)) < 0.9999
    else:
        assert member.check("fp16")["spearman"]["bound"] is None


def test_a_bound_that_is_met_exactly_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = Member(replace(REFERENCE, logits=np.full((IMAGES, CAPTIONS), 0.5)))
    assert alike.check("fp16")["logits"] == {"value": 0.0, "bound": 0.0}
    monkeypatch.setattr(gate, "FP16_SPEARMAN", Member().check("fp16")["spearman"]["value"])
    Member().check("fp16", real=True)


@pytest.mark.parametrize(
    "run", range(len(SHAPES)), ids=[shape.replace("×", "x") for shape in SHAPES]
)
@pytest.mark.parametrize("wrong", ["values", "nan", "inf", "shape"])
def test_every_run_is_compared(run: int, wrong: str) -> None:
    """Of each output in turn: what passes once has not passed at every shape."""
    outputs = [name for name, _ in outputs_of(run)]
    for output in outputs:

        def alter(place: int, name: str, values: NDArray[Any], only: str = output) -> NDArray[Any]:
            if (place, name) != (run, only):
                return values
            if wrong == "shape":
                return np.concatenate([values, values])
            values = values.copy()
            values.flat[-1 if name != "word_embeddings" else 0] += {
                "values": 1e-2,
                "nan": np.nan,
                "inf": -np.inf,
            }[wrong]
            return values

        with refused(GateError, "sgr-2", SHAPES[run].split()[0] if wrong != "values" else "sgr-2"):
            Member(alter=alter).check()


def outputs_of(run: int) -> list[tuple[str, NDArray[Any]]]:
    """The outputs of a run, by its place in the gate's order."""
    found: list[tuple[str, NDArray[Any]]] = []

    def alter(place: int, name: str, values: NDArray[Any]) -> NDArray[Any]:
        found.extend([(name, values)] if place == run else [])
        return values

    Member(alter=alter).check()
    return found


def test_what_stands_past_a_captions_end_is_zero() -> None:
    def alter(run: int, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if (run, name) == (3, "word_embeddings"):
            values[:, -1] = 1e-9
        return values

    with refused(GateError, "sgr-2", "text_encoder", expected=naming()):
        Member(alter=alter).check()
