"""The gate on published bundles, today's and a frozen one of every schema version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.closeness import assert_close, assert_similar, logits_depth
from support.refusals import holds, naming, refused
from support.sabotage import negate
from support.small_models import SAF, write_checkpoint_file

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import SCHEMA_VERSION
from sgraf_deploy.errors import BundleError, CheckpointError, GateError
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.export.verify import verify_bundle
from sgraf_deploy.gate.tolerances import FP16_SIMILARITIES
from sgraf_deploy.runtime import EncodedCaptions, Scorer, load
from sgraf_deploy.runtime.encode import encode_captions

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


@pytest.fixture
def copied(exported: Bundle, tmp_path: Path) -> Path:
    """A copy of the exported bundle, to be damaged."""
    shutil.copytree(exported.path, tmp_path / "copied.sgraf")
    return tmp_path / "copied.sgraf"


@pytest.fixture(scope="module")
def bare(checkpoint_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Both checkpoints, without their reference."""
    target = tmp_path_factory.mktemp("bare") / "bare.sgraf"
    options = ExportOptions(precisions=("fp32",), keep_reference=False)
    return export_bundle([*checkpoint_files.values()], target, options).bundle


def rehash(bundle: Path, file: str) -> None:
    """Make the manifest agree with a file that was changed."""
    content = (bundle / file).read_bytes()
    manifest = bundle / "manifest.json"

    def hint(value: Any) -> Any:
        if isinstance(value, dict):
            repaired = {key: hint(item) for key, item in value.items()}
            if repaired.get("file") == file:
                repaired |= {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
            return repaired
        return [hint(item) for item in value] if isinstance(value, list) else value

    manifest.write_text(json.dumps(hint(json.loads(manifest.read_text()))))


def test_a_bundle_passes_as_it_did_when_it_was_exported(exported: Bundle) -> None:
    assert verify_bundle(Bundle.open(exported.path)) == exported.manifest.parity


@pytest.mark.parametrize(
    "file",
    [
        *("sgr/fp32/scorer.onnx", "saf/fp16/text_encoder.onnx"),
        *("vocab.json", "reference/saf.safetensors", "reference/gate.npz"),
    ],
)
def test_a_damaged_file_is_named(file: str, copied: Path) -> None:
    content = bytearray((copied / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / file).write_bytes(content)

    with refused(BundleError, file, expected=naming("sha256")):
        verify_bundle(Bundle.open(copied))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_of_other_weights_is_caught_by_its_values(precision: str, copied: Path) -> None:
    """Even where someone made the manifest agree."""
    file = f"saf/{precision}/scorer.onnx"
    model = onnx.load(copied / file)
    negate("similarity.weight")(model)
    onnx.save(model, copied / file)
    rehash(copied, file)

    with refused(GateError, "saf", precision):
        verify_bundle(Bundle.open(copied))


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08"])
def test_a_graph_file_that_is_no_graph_is_an_error(content: bytes, copied: Path) -> None:
    (copied / "sgr/fp32/scorer.onnx").write_bytes(content)
    rehash(copied, "sgr/fp32/scorer.onnx")

    with pytest.raises((BundleError, GateError)) as caught:
        verify_bundle(Bundle.open(copied))
    assert holds(caught.value.what, "scorer")


def _not_an_archive(path: Path) -> None:
    path.write_bytes(b"no archive")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _without_a_member(path: Path) -> None:
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays if not name.startswith("saf.")}
    np.savez(path, allow_pickle=False, **kept)


def _pickled(path: Path) -> None:
    np.savez(path, regions=np.array([object()]))


@pytest.mark.parametrize("damage", [_not_an_archive, _truncated, _without_a_member, _pickled])
def test_gate_inputs_that_cannot_be_read_are_an_error(
    damage: Callable[[Path], None], copied: Path
) -> None:
    damage(copied / "reference/gate.npz")
    rehash(copied, "reference/gate.npz")

    with refused(BundleError, copied / "reference/gate.npz", got=naming()):
        verify_bundle(Bundle.open(copied))


def test_without_its_reference_a_bundle_needs_the_checkpoints(bare: Bundle) -> None:
    with refused(BundleError, bare.path, hint="--checkpoint FILE"):
        verify_bundle(bare)


def test_the_checkpoints_stand_in_for_the_reference(
    bare: Bundle, checkpoint_files: dict[str, Path]
) -> None:
    report = verify_bundle(bare, [*checkpoint_files.values()])

    assert report == bare.manifest.parity
    assert holds(report["source"], "synthetic")
    assert verify_bundle(bare, [*reversed(checkpoint_files.values())]) == report


@pytest.mark.parametrize("kept", [("sgr",), ("saf",)], ids=["sgr-alone", "saf-alone"])
def test_every_member_needs_its_checkpoint(
    kept: tuple[str, ...], bare: Bundle, checkpoint_files: dict[str, Path]
) -> None:
    with refused(CheckpointError, *({"sgr", "saf"} - {*kept}), hint="--checkpoint"):
        verify_bundle(bare, [checkpoint_files[name] for name in kept])


def test_another_checkpoint_is_refused(
    bare: Bundle, checkpoint_files: dict[str, Path], tmp_path: Path
) -> None:
    other = write_checkpoint_file(tmp_path / "small_SAF.pth.tar", SAF, seed=8)

    expected = naming(checkpoint_files["saf"].name)
    with refused(CheckpointError, "saf", expected=expected, got=naming(other)):
        verify_bundle(bare, [checkpoint_files["sgr"], other])


def test_checkpoints_are_compared_even_beside_a_reference(
    exported: Bundle, checkpoint_files: dict[str, Path], tmp_path: Path
) -> None:
    other = write_checkpoint_file(tmp_path / "other.pth.tar", SAF, seed=8)

    with pytest.raises(CheckpointError):
        verify_bundle(exported, [checkpoint_files["sgr"], other])
    assert verify_bundle(exported, [*checkpoint_files.values()]) == exported.manifest.parity


@dataclass(frozen=True)
class Frozen:
    """A bundle that an earlier version wrote, inputs, and what the literal loop made of them."""

    version: int
    bundle: Bundle
    expected: dict[str, NDArray[Any]]

    @property
    def captions(self) -> list[NDArray[np.int32]]:
        ids, lengths = self.expected["token_ids"], self.expected["lengths"]
        return [row[:length] for row, length in zip(ids, lengths, strict=True)]


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 5], ids=lambda version: f"version-{version}")
def frozen(request: pytest.FixtureRequest) -> Frozen:
    name = f"v{request.param}"
    with np.load(FIXTURES / f"{name}_expected.npz") as arrays:
        return Frozen(request.param, Bundle.open(FIXTURES / f"{name}.sgraf"), dict(arrays))


def depth_of(frozen: Frozen, member: str) -> int:
    config = frozen.bundle.manifest.members[member].config
    return logits_depth(config, frozen.expected["token_ids"].shape[1])


def encoded_as_they_are(scorer: Scorer, captions: list[NDArray[np.int32]]) -> EncodedCaptions:
    """The frozen captions hold `<pad>` as a word, which a scorer refuses."""
    return encode_captions(scorer._context, captions)


def test_every_version_is_frozen() -> None:
    names = sorted(path.name for path in FIXTURES.glob("*.sgraf"))

    assert names == [f"v{version}.sgraf" for version in range(1, SCHEMA_VERSION + 1)]


def test_a_frozen_bundle_is_opened(frozen: Frozen) -> None:
    raw = json.loads((frozen.bundle.path / "manifest.json").read_text(encoding="utf-8"))
    manifest = frozen.bundle.manifest

    assert raw["schema_version"] == frozen.version
    assert manifest.schema_version == SCHEMA_VERSION
    assert (manifest.module, list(manifest.members)) == {
        1: ("SGRAF", ["sgr", "saf"]),
        2: ("2×SGR + SAF", ["sgr", "sgr-2", "saf"]),
        3: ("SGRAF", ["sgr", "saf"]),
        4: ("SGRAF", ["sgr", "saf"]),
        5: ("SGRAF", ["sgr", "saf"]),
    }[frozen.version]
    assert list(manifest.combined) == (["fp32", "fp16"] if frozen.version == 3 else [])
    assert list(manifest.explain) == (["sgr", "saf"] if frozen.version > 3 else [])
    assert (manifest.extractor is not None) == (frozen.version == 5)
    assert frozen.bundle.verify_files() == ()
    canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    assert frozen.bundle.sha256 == sha256(canonical.encode()).hexdigest()  # As it was written.


def test_a_frozen_bundle_passes_the_gate(frozen: Frozen) -> None:
    report = verify_bundle(frozen.bundle)

    found = {name: tuple(precisions) for name, precisions in report["members"].items()}
    assert found == dict.fromkeys(frozen.bundle.manifest.members, ("fp32", "fp16"))
    assert list(report.get("combined", {})) == list(frozen.bundle.manifest.combined)
    assert list(report.get("explain", {})) == list(frozen.bundle.manifest.explain)


@pytest.mark.parametrize("engine", ["native", "ort", "torch", "torch-reference"])
def test_a_frozen_bundle_scores_as_it_did(engine: str, frozen: Frozen) -> None:
    expected = frozen.expected
    with load(frozen.bundle, engine=engine) as scorer:
        encoded = encoded_as_they_are(scorer, frozen.captions)
        logits = scorer.logits(expected["regions"], encoded)
        similarities = scorer.score(expected["regions"], encoded)

    assert similarities.shape == (3, 4)
    depths = {name: depth_of(frozen, name) for name in frozen.bundle.manifest.members}
    assert_similar(similarities, expected["similarities"], max(depths.values()))
    assert list(logits) == list(depths)
    for member, depth in depths.items():
        assert_close(logits[member], expected[member], depth)


def test_a_frozen_bundle_reads_sentences(frozen: Frozen) -> None:
    regions = frozen.expected["regions"]
    with load(frozen.bundle, engine="ort") as scorer:
        words = scorer.score(regions, ["A dog runs on the sofa", "cat"])
        ids = scorer.score(regions, [[1, 4, 5, 7, 9, 10, 11, 2], [1, 6, 2]])

    assert_similar(words, ids, depth_of(frozen, "sgr"))


@pytest.mark.parametrize("engine", ["ort", "torch"])
def test_a_frozen_bundle_scores_in_half_precision(engine: str, frozen: Frozen) -> None:
    expected = frozen.expected
    with load(frozen.bundle, engine=engine, precision="fp16") as scorer:
        encoded = encoded_as_they_are(scorer, frozen.captions)
        similarities = scorer.score(expected["regions"], encoded)

    assert np.abs(similarities - expected["similarities"]).max() <= FP16_SIMILARITIES


def test_a_frozen_bundle_sees_what_it_did() -> None:
    """Within what a mean cosine of 0.999 lets pass: another processor sums in another order."""
    with np.load(FIXTURES / "v5_expected.npz") as expected, load(FIXTURES / "v5.sgraf") as scorer:
        photos, seen = [*expected["photos"]], expected["seen"]
        found = scorer.extractor.extract(photos).regions
        assert found.shape == (2, 3, 6)
        np.testing.assert_allclose(found, seen, rtol=1e-4, atol=1e-4 * np.abs(seen).max())
        assert len(scorer.encode_photos(photos)) == 2
