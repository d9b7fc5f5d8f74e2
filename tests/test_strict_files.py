"""Files of every kind that is read, changed at random: read as they are, or refused by their error.

Never another exception; and what is read is written and read again as the same.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_engine import FakeEngine
from support.mutations import Changed, changed, damaged, dumps, read_or_refused
from support.onnx_bundles import write_bundle
from support.small_bundle import manifest, member, without_extras

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import Manifest, parse_json
from sgraf_deploy.bundle.migrations import migrate
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.engines.trt.plans import Sidecar
from sgraf_deploy.errors import BundleError, DataError, InputError
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.runtime.tiles import TileLimits

Json = Any

EXAMPLES = settings(max_examples=150)


@dataclass(frozen=True)
class Kind:
    """A kind of file: a valid one's JSON, its file, and how it is read and written."""

    error: type[InputError]
    valid: Json
    file: Callable[[Json], bytes]
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strict")


def manifests(folder: Path) -> Kind:
    def read(content: bytes) -> Manifest:
        (folder / "manifest.json").write_bytes(content)
        return Bundle.open(folder).manifest

    members = {"sgr": member("SGR", ("fp16", "fp32")), "saf": member("SAF")}
    ensemble = manifest(members)
    return Kind(BundleError, ensemble.to_json(), dumps, read, lambda made: dumps(made.to_json()))


SIDECAR = Sidecar(
    member="sgr",
    graph="scorer",
    precision="fp16",
    onnx_sha256="ab" * 32,
    plan_sha256="cd" * 32,
    plan_bytes=1000,
    flavour="tensorrt",
    version="10.1",
    compute_capabilities=("8.9",),
    profiles=({"lengths": ((1,), (4,), (8,)), "words": ((1, 2), (1, 2), (3, 4))},),
    workspace_bytes=2**30,
    layers={"FLOAT": 1, "HALF": 16},
)


def sidecars(folder: Path) -> Kind:
    def signed(value: Json) -> bytes:
        """With the checksum of what it holds, as anybody can compute it."""
        content = dumps(value)
        with suppress(ValueError, RecursionError, AttributeError, TypeError):
            held = json.loads(content)
            given = held.pop("checksum", "")
            canonical = json.dumps(held, sort_keys=True, separators=(",", ":"))
            right = hashlib.sha256(canonical.encode()).hexdigest()
            return content.replace(str(given).encode(), right.encode()) if given else content
        return content

    return Kind(BundleError, SIDECAR.to_json(), signed, Sidecar.from_bytes, Sidecar.to_bytes)


def vocabularies(folder: Path) -> Kind:
    def read(content: bytes) -> tuple[str, ...]:
        (folder / "vocab.json").write_bytes(content)
        return Vocabulary.load(folder / "vocab.json").words

    valid = Vocabulary([*SPECIAL_WORDS, "a", "dog", "café"]).to_json()
    return Kind(DataError, valid, dumps, read, lambda words: dumps(Vocabulary(words).to_json()))


KINDS = {"manifest": manifests, "sidecar": sidecars, "vocabulary": vocabularies}


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_is_read_or_refused(name: str, folder: Path) -> None:
    kind = KINDS[name](folder)
    assert kind.read(kind.file(kind.valid)) is not None
    found = []

    @EXAMPLES
    @given(changed(kind.valid))
    def check(change: Changed) -> None:
        read = read_or_refused(kind.read, kind.file(change.document), kind.error)
        found.append(read is not None)
        if read is not None:
            assert kind.read(kind.write(read)) == read

    check()
    assert False in found


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_read_or_refused(name: str, folder: Path) -> None:
    kind = KINDS[name](folder)

    @EXAMPLES
    @given(damaged(kind.file(kind.valid)))
    def check(content: bytes) -> None:
        read_or_refused(kind.read, content, kind.error)

    check()


@dataclass(frozen=True)
class Encodings:
    """Saved images and captions of a scorer, and how they are read."""

    scorer: Scorer
    folder: Path

    def saved(self, name: str) -> bytes:
        if name == "images":
            regions = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
            made: Any = self.scorer.encode_images(regions)
        else:
            made = self.scorer.encode_captions(["a dog", "the red cat sleeps"])
        return self.scorer.save_encoded(made, self.folder / name).read_bytes()

    def read(self, name: str, content: bytes) -> list[Any]:
        path = self.folder / "changed"
        path.write_bytes(content)
        if name == "images":
            images = self.scorer.load_images(path)
            return [part for one in images.members.values() for part in one.named.values()]
        captions = self.scorer.load_captions(path)
        return [captions.lengths, *(captions.compact_words(name) for name in captions.members)]


@pytest.fixture(scope="module")
def encodings(tmp_path_factory: pytest.TempPathFactory) -> Encodings:
    folder = tmp_path_factory.mktemp("encodings")
    bundle = write_bundle(folder / "small.sgraf", precisions=["fp32"])
    engine = FakeEngine(bundle)
    return Encodings(Scorer(bundle, engine, precision="fp32", limits=TileLimits()), folder)


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["images", "captions"])
def test_encodings_with_another_header_are_read_or_refused(encodings: Encodings, name: str) -> None:
    with np.load(io.BytesIO(encodings.saved(name))) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["sgraf_gallery"]))

    @EXAMPLES
    @given(changed(header))
    def check(change: Changed) -> None:
        written = io.BytesIO()
        text = dumps(change.document).decode("utf-8", "surrogatepass")
        np.savez(written, allow_pickle=False, **{**arrays, "sgraf_gallery": np.array(text)})
        read_or_refused(
            lambda content: encodings.read(name, content), written.getvalue(), DataError
        )

    check()


@pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["images", "captions"])
def test_damaged_encodings_are_read_as_they_were_or_refused(
    encodings: Encodings, name: str
) -> None:
    content = encodings.saved(name)
    right = encodings.read(name, content)

    @EXAMPLES
    @given(damaged(content))
    def check(content: bytes) -> None:
        found = read_or_refused(lambda content: encodings.read(name, content), content, DataError)
        if found is not None:
            assert len(found) == len(right)
            assert all(map(np.array_equal, found, right))

    check()


TEXT = st.text(max_size=20)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
FREE = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.none() | NUMBERS,
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.dictionaries(TEXT, FREE, max_size=3),
    st.dictionaries(TEXT, TEXT, max_size=3),
    st.booleans(),
)
def test_every_manifest_reads_back_as_it_was(
    epoch: int | None, rsum: float | None, free: dict[str, Any], tools: dict[str, str], bare: bool
) -> None:
    made = manifest({"sgr": member("SGR"), "saf": member("SAF", embed=16)})
    made = without_extras(made) if bare else replace(made, region_statistics=free)
    members = {
        name: replace(one, checkpoint=replace(one.checkpoint, epoch=epoch, best_rsum=rsum))
        for name, one in made.members.items()
    }
    made = replace(made, members=members, parity=free, tools=tools)
    assert Manifest.from_json(migrate(parse_json(json.dumps(made.to_json())))) == made


SHAPES = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.dictionaries(TEXT, SHAPES.map(lambda shape: (shape,) * 3), max_size=3), max_size=3),
    st.dictionaries(TEXT, NUMBERS, max_size=3),
)
def test_every_sidecar_reads_back_as_it_was(
    size: int, profiles: list[Any], layers: dict[str, int]
) -> None:
    made = replace(SIDECAR, plan_bytes=size, profiles=tuple(profiles), layers=layers)
    assert Sidecar.from_bytes(made.to_bytes()) == made
