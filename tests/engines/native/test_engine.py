"""Engine native: its values beside the folded model, and what it must never do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.native_cases import (
    CASES,
    SMALL,
    Case,
    Inputs,
    assert_close,
    expected,
    make_inputs,
    native_model,
    scored,
)
from support.refusals import naming, refused
from support.scorers import make_token_ids

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Module, signature
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.native import engine as native
from sgraf_deploy.engines.native import library
from sgraf_deploy.engines.native.library import NativeModel
from sgraf_deploy.errors import EngineMemoryError, InputError, UnavailableError
from sgraf_deploy.runtime import load

pytestmark = [
    pytest.mark.skipif(not library.LIBRARY.exists(), reason="engine native was not compiled"),
    pytest.mark.usefixtures("instruction_set"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_values_are_those_of_the_folded_model(case: Case) -> None:
    inputs = make_inputs(case, 3, [5, 1, 2, 17, 16, 33, 80])

    logits = scored(native_model(case), inputs)

    assert logits.std() > 1e-3
    assert_close(logits, expected(case, inputs))


SHAPES = [
    (1, [1]),
    (1, [9]),
    (150, [7]),
    (1, [3] * 150),
    (2, [300, 2]),
    (1, [500]),
    (70, [14, 3, 20]),
    (9, list(range(1, 60))),
]


@pytest.mark.parametrize(("images", "lengths"), SHAPES, ids=lambda x: str(np.size(x)))
@pytest.mark.parametrize("module", ["SGR", "SAF"])
def test_any_number_of_images_and_words(module: Module, images: int, lengths: list[int]) -> None:
    case = Case(module)
    inputs = make_inputs(case, images, lengths)
    assert_close(scored(native_model(case), inputs), expected(case, inputs))


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_a_pair_has_the_same_bits_alone_padded_and_in_any_batch(case: Case) -> None:
    model, lengths = native_model(case), [4, 30, 11, 2, 19, 8, 8, 25] * 3
    inputs = make_inputs(case, 7, lengths)
    whole = scored(model, inputs)
    for image, caption in ((0, 0), (6, 23), (3, 7), (5, 11)):
        words = lengths[caption]
        alone = {
            name: array[image : image + 1] if "image" in name or "region" in name else array
            for name, array in inputs.items()
        }
        for name in ("word_embeddings", "text_global", "lengths"):
            alone[name] = alone[name][caption : caption + 1]
        padded = scored(model, alone)
        alone["word_embeddings"] = np.ascontiguousarray(alone["word_embeddings"][:, :words])
        assert padded == scored(model, alone) == whole[image, caption]


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_listed_pairs_are_those_of_the_matrix(case: Case) -> None:
    inputs = make_inputs(case, 6, [4, 30, 11, 2, 250, 8])
    rng = np.random.default_rng(1)
    index = {name: rng.integers(0, 6, 200).astype(np.int32) for name in ("image", "caption")}
    index["caption"][50:90] = np.sort(index["caption"][50:90])
    logits = np.empty(200, np.float32)

    listed = inputs | {f"{name}_index": array for name, array in index.items()}
    del listed["region_gram"]
    model = native_model(case)
    model.score(listed, logits)

    assert_close(logits, scored(model, inputs)[index["image"], index["caption"]])


def test_without_the_products_of_regions_it_computes_the_norms() -> None:
    case = Case("SAF", embed=300)
    inputs = make_inputs(case, 5, [4, 30, 11])
    with_them = scored(native_model(case), inputs)
    del inputs["region_gram"]
    assert_close(scored(native_model(case), inputs), with_them)


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_an_image_of_zeros_has_a_finite_logit(case: Case) -> None:
    inputs = make_inputs(case, 3, [4, 30])
    for name in ("region_embeddings", "image_global", "region_gram"):
        inputs[name][1] = 0.0
    inputs["region_gram"][1] = -1e-12  # as rounding may leave it
    logits = scored(native_model(case), inputs)
    assert np.isfinite(logits).all()
    assert_close(logits, expected(case, inputs))


EMBEDDINGS = ("region_embeddings", "image_global", "word_embeddings")


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_a_nan_is_not_hidden_and_spoils_its_own_pairs_alone(case: Case, name: str) -> None:
    inputs = make_inputs(case, 5, [4, 30, 11, 8])
    clean = scored(native_model(case), inputs)
    inputs[name][2, ..., 3] = np.nan

    logits = scored(native_model(case), inputs)

    spoilt = np.zeros(logits.shape, dtype=bool)
    spoilt[(slice(None), 2) if name == "word_embeddings" else 2] = True
    assert np.isnan(logits[spoilt]).all()
    assert np.array_equal(logits[~spoilt], clean[~spoilt])


GUARDED = """
import ctypes, mmap, sys
import numpy as np
from support.native_cases import SMALL, make_inputs, native_model, scored

PAGE, libc = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True)
kept = []

def before_the_end_of_memory(array):
    pages = -(-array.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    kept.append(memory)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    assert libc.mprotect(ctypes.c_void_p(start + pages * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    whole = np.frombuffer(memory, array.dtype, array.size, pages * PAGE - array.nbytes)
    whole[:] = array.reshape(-1)
    return whole.reshape(array.shape)

for case in SMALL:
    for images, lengths in ((3, [5, 1, 17]), (1, [14])):
        inputs = make_inputs(case, images, lengths)
        right = scored(native_model(case), inputs)
        guarded = {name: before_the_end_of_memory(array) for name, array in inputs.items()}
        assert np.array_equal(scored(native_model(case), guarded), right)
print("read", len(kept), "arrays to their ends")
"""


@pytest.mark.slow
def test_no_array_is_read_past_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUARDED],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"read {len(SMALL) * 12} arrays to their ends\n"


def scorer_graph(case: Case) -> native.NativeGraph:
    return native.NativeGraph(signature("scorer", case.config, "fp32"), native_model(case))


def pair_graph(case: Case) -> native.NativeGraph:
    return native.NativeGraph(signature("pair_scorer", case.config, "fp32"), native_model(case))


def pair_inputs(case: Case) -> Inputs:
    index = np.array([0, 2], dtype=np.int32)
    return make_inputs(case, 3, [5, 1]) | {"image_index": index, "caption_index": index // 2}


def shifted(array: Any) -> Any:
    """The same numbers, each across the bounds of a float."""
    memory = np.empty(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[:] = array
    return moved


WRONG: dict[str, tuple[str, Any, naming, naming]] = {
    "missing": ("text_global", lambda x: None, naming("float32"), naming()),
    "dtype": ("image_global", lambda x: x.astype(np.float64), naming("float32"), naming("float64")),
    "axes": ("image_global", lambda x: x[0], naming("float32", 3, 64), naming("(64,)")),
    "embed": ("word_embeddings", lambda x: x[..., :-1].copy(), naming(64), naming("(2, 5, 63)")),
    "images": ("image_global", lambda x: x[:2].copy(), naming(3, 64), naming("(2, 64)")),
    "alignment": ("image_global", shifted, naming(3, 64), naming("(3, 64)")),
    "layout": ("region_embeddings", lambda x: x[::-1], naming(36, 64), naming("(3, 36, 64)")),
    "no words": ("lengths", lambda x: x * 0, naming(1, 5), naming(0)),
    "long": ("lengths", lambda x: x + 1, naming(1, 5), naming(2, 6)),
    "image": ("image_index", lambda x: x + 1, naming(0, 2), naming(1, 3)),
    "caption": ("caption_index", lambda x: x - 1, naming(0, 1), naming(-1, 0)),
}


@pytest.mark.parametrize(("name", "change", "expected", "got"), WRONG.values(), ids=WRONG)
def test_what_c_could_not_read_safely_is_refused(
    name: str, change: Any, expected: naming, got: naming
) -> None:
    inputs = pair_inputs(Case())
    graph = pair_graph(Case())
    assert graph.run(inputs)["logits"].shape == (2,)
    inputs[name] = change(inputs[name])
    with refused(InputError, name, expected=expected, got=got):
        graph.run(inputs)


def test_logits_are_written_where_they_are_bound() -> None:
    inputs, room = make_inputs(Case(), 3, [5, 1]), np.zeros((4, 2), np.float32)
    graph = scorer_graph(Case())
    found = graph.run(inputs, {"logits": room[1:]})["logits"]
    assert np.shares_memory(found, room)
    assert np.array_equal(room[1:], graph.run(inputs)["logits"])
    with refused(InputError, "logits", expected=naming(3, 2), got=naming("(4, 2)")):
        graph.run(inputs, {"logits": room})
    room.flags.writeable = False
    with refused(InputError, "logits", expected=naming(), got=None):
        graph.run(inputs, {"logits": room[1:]})


def test_no_pairs_give_no_logits() -> None:
    inputs = pair_inputs(Case())
    for name in ("image_index", "caption_index"):
        inputs[name] = inputs[name][:0]
    assert pair_graph(Case()).run(inputs)["logits"].shape == (0,)


def test_running_out_of_memory_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(NativeModel, "score", full)
    with refused(EngineMemoryError, "native"):
        scorer_graph(Case()).run(make_inputs(Case(), 3, [5, 1]))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bundle_gives_the_values_of_onnx_runtime(exported: Bundle, threads: int) -> None:
    config = next(iter(exported.manifest.members.values())).config
    rng = np.random.default_rng(0)
    shape = (30, config.regions, config.img_dim)
    regions, captions = rng.normal(size=shape).astype(np.float32), make_token_ids(40, longest=30)
    options = EngineOptions(threads=threads)
    with (
        load(exported, engine="native", options=options) as scorer,
        load(exported, engine="ort", options=options) as other,
    ):
        assert (scorer.engine_name, scorer.executed, scorer.device) == ("native", "fp32", "cpu")
        assert np.abs(scorer.score(regions, captions) - other.score(regions, captions)).max() < 1e-6
        pairs = ([0, 29, 3], [39, 0, 3])
        found = scorer.score_pairs(regions, captions, *pairs)
        assert np.abs(found - other.score_pairs(regions, captions, *pairs)).max() < 1e-6


def test_a_bundle_of_before_there_was_a_gram_matrix_is_scored() -> None:
    frozen = Bundle.open(Path(__file__).parents[2] / "fixtures" / "v1.sgraf")
    config = next(iter(frozen.manifest.members.values())).config
    shape = (5, config.regions, config.img_dim)
    regions = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    captions = [1 + ids % (config.vocab_size - 1) for ids in make_token_ids(6)]
    with load(frozen, engine="native") as scorer, load(frozen, engine="ort") as other:
        found, right = (each.score(regions, captions) for each in (scorer, other))
    assert np.abs(found - right).max() < 1e-6


def test_other_precisions_are_refused(exported: Bundle) -> None:
    with refused(UnavailableError, "native", expected=naming("fp32"), got="fp16"):
        load(exported, engine="native", precision="fp16")


def test_other_devices_are_refused(exported: Bundle) -> None:
    with refused(InputError, "native", "device", expected="cpu", got="cuda"):
        load(exported, engine="native", options=EngineOptions(device="cuda"))
