"""Ensembles of any members, on every engine of a CPU, against the literal loop of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_models import (
    SAF,
    SGR,
    padded,
    random_captions,
    random_regions,
    write_checkpoint_file,
)

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import ModelConfig
from sgraf_deploy.engines.ensemble import combine_logits
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.export.gate_inputs import reference_outputs
from sgraf_deploy.gate.inputs import GateInputs
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.runtime import EngineOptions, Scorer, load

ENGINES = ("native", "ort", "torch", "torch-reference")
IMAGES, LENGTHS = 5, (2, 9, 3, 14, 2, 7, 5)
SIMILARITIES = 1e-6
"""1e-5 is promised; 7e-8 was measured."""

SMALL: dict[str, Any] = {"embed": 24, "sim_dim": 12, "word_dim": 10}
"""Dimensions that members need not share."""

ENSEMBLES: dict[str, tuple[ModelConfig, ...]] = {
    "one": (SAF,),
    "seeds": (SGR, SGR),
    "three": (SGR, SAF, replace(SGR, sgr_steps=2, **SMALL)),
    "six": (SAF, SGR, replace(SAF, **SMALL), SGR, SAF, replace(SGR, bidirectional=False)),
}
NAMES = {
    "one": ["saf"],
    "seeds": ["sgr", "sgr-2"],
    "three": ["sgr", "sgr-2", "saf"],
    "six": ["sgr", "sgr-2", "sgr-3", "saf", "saf-2", "saf-3"],
}


@dataclass(frozen=True)
class Ensemble:
    """A bundle, its inputs, and the literal loops' logits in float64 by member."""

    bundle: Bundle
    regions: NDArray[np.float32]
    captions: list[NDArray[np.int32]]
    logits: dict[str, NDArray[np.float64]]

    @property
    def similarities(self) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.mean(
            [1 / (1 + np.exp(-logits)) for logits in self.logits.values()], axis=0
        )
        return found


@pytest.fixture(scope="module", params=ENSEMBLES)
def ensemble(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    configs, names = ENSEMBLES[request.param], NAMES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    paths = [
        write_checkpoint_file(folder / f"{seed}.pth.tar", config, seed)
        for seed, config in enumerate(configs)
    ]
    options = ExportOptions(precisions=("fp32",))
    bundle = export_bundle(paths, folder / "made.sgraf", options).bundle
    regions, captions = random_regions(SGR, IMAGES), random_captions(SGR, LENGTHS)
    inputs = GateInputs(regions, *padded(captions), "random", real=False)
    by_module = sorted(paths, key=lambda path: configs[int(path.name[0])].module, reverse=True)
    logits = {}
    for name, path in zip(names, by_module, strict=True):
        read = read_checkpoint(path)
        logits[name] = reference_outputs(read.config, read.weights, inputs).logits
    return Ensemble(bundle, regions, captions, logits)


@pytest.fixture(params=ENGINES)
def scorer(request: pytest.FixtureRequest, ensemble: Ensemble) -> Iterator[Scorer]:
    with load(ensemble.bundle, engine=request.param, options=EngineOptions(threads=1)) as made:
        yield made


def close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=SIMILARITIES)


def test_the_members_tell_right_from_wrong(ensemble: Ensemble) -> None:
    """A combination that left one out, or took one twice, would be far off."""
    members = [1 / (1 + np.exp(-logits)) for logits in ensemble.logits.values()]
    for left_out, taken_twice in np.ndindex(len(members), len(members)):
        if left_out != taken_twice:
            moved = (members[taken_twice] - members[left_out]) / len(members)
            assert np.abs(moved).max() > 1000 * SIMILARITIES


def test_the_matrix_is_the_mean_of_the_literal_loops(ensemble: Ensemble, scorer: Scorer) -> None:
    assert list(scorer.members) == list(ensemble.logits)

    close(scorer.score(ensemble.regions, ensemble.captions), ensemble.similarities)


def test_every_member_is_its_own_checkpoint(ensemble: Ensemble, scorer: Scorer) -> None:
    found = scorer.logits(ensemble.regions, ensemble.captions)

    assert list(found) == list(ensemble.logits)
    for name, logits in ensemble.logits.items():
        np.testing.assert_allclose(found[name], logits, rtol=0, atol=4 * SIMILARITIES)


def test_pairs_and_rankings_are_those_of_the_matrix(ensemble: Ensemble, scorer: Scorer) -> None:
    images = scorer.encode_images(ensemble.regions)
    captions = scorer.encode_captions(ensemble.captions)
    rows, columns = np.divmod(np.arange(IMAGES * len(LENGTHS)), len(LENGTHS))
    logits = combine_logits(*scorer.logits(images, captions).values())

    close(scorer.score_pairs(images, captions, rows, columns), ensemble.similarities.ravel())
    best = scorer.rerank(captions[3], images)
    assert sorted(best.indices) == list(range(IMAGES))
    close(best.similarities, ensemble.similarities[best.indices, 3])
    np.testing.assert_allclose(best.logits, logits[best.indices, 3], rtol=0, atol=1e-5)
    assert (np.diff(best.logits) <= 0).all()


def test_rows_on_the_host_hold_every_member(ensemble: Ensemble, scorer: Scorer) -> None:
    images = scorer.encode_images(ensemble.regions)
    captions = scorer.encode_captions(ensemble.captions)
    expected = scorer.score(images, captions)

    found = scorer.score(
        scorer.images_from_host(images.to_host()),
        scorer.captions_from_host(captions.lengths, captions.to_host()),
    )

    np.testing.assert_array_equal(found, expected)
