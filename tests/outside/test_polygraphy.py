"""Polygraphy runs every graph from the commands that are printed, and gives `Scorer`'s values."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cli_world import done
from support.commands import imported
from support.elsewhere import ran

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import PRECISIONS, Precision
from sgraf_deploy.engines.ensemble import ensemble_logits, similarities
from sgraf_deploy.runtime.encoded import (
    EncodedCaptions,
    EncodedImages,
    ImageBuffers,
    TextBuffers,
    make_captions,
)
from sgraf_deploy.runtime.scorer import Scorer, load

pytestmark = pytest.mark.outside

Arrays = Mapping[str, NDArray[Any]]

ENGINES: dict[Precision, str] = {"fp32": "ort", "fp16": "torch"}
"""What `Scorer` runs: ONNX Runtime is no engine for fp16 on a CPU, and computes it in float32."""

CLOSE: dict[Precision, float] = {"fp32": 1e-5, "fp16": 2e-2}
"""Largest difference; in fp16 as a part of the standard deviation."""


@pytest.fixture(scope="module")
def script(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands") / "inputs.py"


@pytest.fixture(scope="module")
def outputs(demo: Bundle, script: Path) -> dict[str, Arrays]:
    """What every graph gives, by the name of its inputs: the printed commands, run by a shell."""
    from polygraphy.comparator import RunResults

    printed = done("inspect", demo.path, "--commands", script).stdout.splitlines()
    lines = [line for line in printed if line.startswith("polygraphy ")]
    names = [line.rpartition(":")[2] for line in lines]
    bin_folder = Path(sys.executable).parent

    def run(line: str, name: str) -> Arrays:
        saved = script.with_name(f"{name}.json")
        command = f"PATH={shlex.quote(str(bin_folder))}:$PATH; {line} --save-outputs {saved}"
        result = ran("sh", "-c", command)
        assert result.returncode == 0, result.stdout + result.stderr
        ((_, (iteration,)),) = RunResults.load(str(saved)).items()
        return {output: np.asarray(array) for output, array in iteration.items()}

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(run, lines, names), strict=True))


@pytest.fixture(scope="module")
def given(script: Path, outputs: dict[str, Arrays]) -> ModuleType:
    """The script that made the inputs."""
    return imported(script)


def test_every_graph_has_run_without_a_nan(
    demo: Bundle, given: ModuleType, outputs: dict[str, Arrays]
) -> None:
    assert list(outputs) == list(given.GRAPHS)
    assert len(outputs) == len(demo.manifest.members) * 2 * 6 + 2 * 3
    for found in outputs.values():
        assert all(np.isfinite(array).all() for array in found.values())


def images_of(scorer: Scorer, made: Mapping[str, Arrays]) -> EncodedImages:
    """Every member's inputs as images that `scorer` has encoded."""
    origin = scorer.encode_images(np.zeros((1, *_region(scorer)), np.float32)).origin
    parts = ("region_embeddings", "image_global", "region_gram")
    members = {
        name: ImageBuffers(
            **{part: origin.engine.put(each[part]) for part in parts if part in each}
        )
        for name, each in made.items()
    }
    return EncodedImages(origin, members, len(next(iter(made.values()))["image_global"]))


def captions_of(scorer: Scorer, made: Mapping[str, Arrays]) -> EncodedCaptions:
    """Every member's inputs as captions that `scorer` has encoded: without padding, then zeros."""
    origin = scorer.encode_captions([[1, 2]]).origin
    members = {}
    for name, each in made.items():
        words, lengths = each["word_embeddings"], each["lengths"]
        real = words[np.arange(words.shape[1]) < lengths[:, None]]
        rows = np.concatenate([real, np.zeros_like(real[:1])])
        put = origin.engine.put
        members[name] = TextBuffers(put(rows), put(each["text_global"]))
    return make_captions(origin, members, lengths.copy())


def _region(scorer: Scorer) -> tuple[int, int]:
    return scorer.bundle.manifest.regions, scorer.bundle.manifest.img_dim


def close(found: NDArray[Any], expected: NDArray[Any], precision: Precision) -> bool:
    """Whether a graph's output is `Scorer`'s."""
    assert found.shape == expected.shape
    most = CLOSE[precision] * (1.0 if precision == "fp32" else float(np.std(expected)))
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return bool(difference.max() <= most)


@pytest.fixture(params=["fp32", "fp16"])
def precision(request: pytest.FixtureRequest) -> Precision:
    (found,) = (each for each in PRECISIONS if each == request.param)
    return found


@pytest.fixture
def scorer(demo: Bundle, precision: Precision) -> Any:
    with load(demo, ENGINES[precision], precision) as opened:
        yield opened


def test_encoders_give_what_the_scorer_encodes(
    scorer: Scorer, precision: Precision, given: ModuleType, outputs: dict[str, Arrays]
) -> None:
    for member in scorer.members:
        name = f"{member}_{precision}_image_encoder"
        images = scorer.encode_images(given.inputs(name)["regions"])
        fetch = images.origin.engine.fetch
        for output, buffer in images.members[member].named.items():
            assert close(outputs[name][output], fetch(buffer), precision), (name, output)

        name = f"{member}_{precision}_text_encoder"
        made = given.inputs(name)
        captions = scorer.encode_captions(made["token_ids"], made["lengths"])
        words, lengths = outputs[name]["word_embeddings"], made["lengths"]
        real = np.arange(words.shape[1]) < lengths[:, None]
        assert close(words[real], captions.compact_words(member), precision), name
        assert not words[~real].any()
        globals_ = fetch(captions.members[member].text_global)
        assert close(outputs[name]["text_global"], globals_, precision), name


@pytest.mark.parametrize("graph", ["scorer", "scorer_one_caption", "scorer_one_image"])
def test_scorers_give_the_scorers_logits(
    scorer: Scorer,
    precision: Precision,
    given: ModuleType,
    outputs: dict[str, Arrays],
    graph: str,
) -> None:
    made = {member: given.inputs(f"{member}_{precision}_{graph}") for member in scorer.members}
    logits = scorer.logits(images_of(scorer, made), captions_of(scorer, made))
    for member in scorer.members:
        name = f"{member}_{precision}_{graph}"
        assert close(outputs[name]["logits"], logits[member], precision), name


def test_pair_scorers_give_the_scorers_logits(
    scorer: Scorer, precision: Precision, given: ModuleType, outputs: dict[str, Arrays]
) -> None:
    made = {member: given.inputs(f"{member}_{precision}_pair_scorer") for member in scorer.members}
    index = next(iter(made.values()))
    logits = scorer.logits_pairs(
        images_of(scorer, made),
        captions_of(scorer, made),
        index["image_index"],
        index["caption_index"],
    )
    for member in scorer.members:
        name = f"{member}_{precision}_pair_scorer"
        assert close(outputs[name]["logits"], logits[member], precision), name


def test_the_combined_graph_gives_the_ensembles_scores(
    scorer: Scorer, precision: Precision, given: ModuleType, outputs: dict[str, Arrays]
) -> None:
    for suffix in ("", "_one_caption", "_one_image"):
        name = f"combined_{precision}{suffix}"
        made = given.inputs(name)
        captions = scorer.encode_captions(made["token_ids"], made["lengths"])
        logits = ensemble_logits(scorer.logits(made["regions"], captions))
        assert close(outputs[name]["logits"], logits, precision), name
        assert close(outputs[name]["similarities"], similarities(logits), precision), name
