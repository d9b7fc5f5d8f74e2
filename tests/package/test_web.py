"""The page's folder: what is in it, what is refused, and that it is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_npm import VERSION, write_npm
from support.refusals import naming, refused
from support.small_models import SGR, WORDS, random_regions

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import FileRef
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.tokenizer import TRAINED, UNTRAINED, VOCABULARY
from sgraf_deploy.errors import BundleError, DataError, InputError
from sgraf_deploy.files.folders import list_files
from sgraf_deploy.package import web
from sgraf_deploy.package.browser_runtime import LICENCE, SCRIPT, SOURCE, WASM
from sgraf_deploy.package.contents import CONTENTS
from sgraf_deploy.package.web import STATIC, PageOptions, write_page

IMAGES = 9
PAGE = Path(web.__file__).parent / "page"


@pytest.fixture(scope="module")
def split() -> PrecompSplit:
    """Nine images with a name and two captions each."""
    captions = [f"word{row} a dog {row}" for row in range(2 * IMAGES)]
    image_of = np.arange(2 * IMAGES, dtype=np.int32) // 2
    names = [f"photo {row}" for row in range(IMAGES)]
    regions = random_regions(SGR, IMAGES, seed=4)
    return PrecompSplit("dev", regions, captions, image_of, names, captions_per_image=2)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> PageOptions:
    return PageOptions(write_npm(tmp_path_factory.mktemp("npm") / "node_modules"))


@pytest.fixture(scope="module")
def page(
    exported: Bundle,
    split: PrecompSplit,
    options: PageOptions,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("page") / "page"
    write_page(exported, split, folder, options)
    return folder


@pytest.fixture(scope="module")
def described(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((page / "page.json").read_text(encoding="utf-8"))
    return found


def changed(bundle: Bundle, **fields: Any) -> Bundle:
    """The bundle with another manifest."""
    return Bundle(bundle.path, replace(bundle.manifest, **fields), bundle.sha256)


def with_precision(bundle: Bundle, precision: Any) -> Bundle:
    """The bundle with the graphs of one precision alone."""
    members = {
        name: replace(member, graphs={precision: member.graphs[precision]})
        for name, member in bundle.manifest.members.items()
    }
    return changed(bundle, members=members)


def beside(folder: Path) -> list[str]:
    """What lies beside a folder, hidden or not."""
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


def test_the_folder_holds_what_its_list_names(page: Path, exported: Bundle) -> None:
    contents = json.loads((page / CONTENTS).read_text(encoding="utf-8"))

    assert (contents["kind"], contents["bundle"]) == ("web", exported.sha256)
    assert contents["program"] == sgraf_deploy.__version__
    refs = [FileRef(**entry) for entry in contents["files"]]
    assert sorted([CONTENTS, *(ref.file for ref in refs)]) == list_files(page)
    for ref in refs:
        content = (page / ref.file).read_bytes()
        assert (ref.bytes, ref.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_static_files_and_the_runtime_are_copies(page: Path, options: PageOptions) -> None:
    for name in STATIC:
        assert (page / name).read_bytes() == (PAGE / name).read_bytes()
    dist = options.runtime / "onnxruntime-web" / "dist"
    for name, source in ((SCRIPT, SOURCE), (WASM, WASM)):
        assert (page / "runtime" / name).read_bytes() == (dist / source).read_bytes()
    assert list_files(page / "runtime") == sorted([SCRIPT, WASM, LICENCE])


def test_the_graphs_are_the_bundles_in_fp32(
    page: Path, exported: Bundle, described: dict[str, Any]
) -> None:
    assert [member["name"] for member in described["members"]] == ["sgr", "saf"]
    for member in described["members"]:
        for graph in ("text_encoder", "scorer"):
            original = exported.graph_path(member["name"], graph, "fp32")
            assert (page / member[graph]).read_bytes() == original.read_bytes()
    assert len(list_files(page / "models")) == 4


def test_the_images_are_those_that_a_scorer_encodes(
    page: Path, exported: Bundle, split: PrecompSplit, described: dict[str, Any]
) -> None:
    with sgraf_deploy.load(exported, precision="fp32", device="cpu") as scorer:
        images = scorer.encode_images(split.regions)
        for member in described["members"]:
            buffers = images.members[member["name"]].named
            assert {part["name"] for part in member["images"]} == set(buffers)
            for part in member["images"]:
                stored = np.frombuffer((page / part["path"]).read_bytes(), "<f4")
                encoded = scorer._context.engine.fetch(buffers[part["name"]])
                np.testing.assert_array_equal(stored.reshape(IMAGES, *part["shape"]), encoded)


def test_the_page_waits_for_every_large_file(page: Path, described: dict[str, Any]) -> None:
    waited = {entry["path"]: entry["bytes"] for entry in described["downloads"]}

    large = [*list_files(page / "models"), *list_files(page / "images")]
    assert len(waited) == len(large) + 1
    assert described["wasm"] == f"runtime/{WASM}"
    assert described["wasm"] in waited
    assert waited == {name: (page / name).stat().st_size for name in waited}


def test_the_page_knows_words_names_and_examples(
    described: dict[str, Any], exported: Bundle, split: PrecompSplit
) -> None:
    assert described["vocabulary"] == list(WORDS)
    assert described["tokenizer"] == VOCABULARY
    assert described["names"] == split.ids
    assert described["runtime"] == VERSION
    assert described["limits"] == {"most_words": 512, "characters_per_word": 16}
    assert described["bundle"]["sha256"] == exported.sha256
    rows = [example["image"] for example in described["examples"]]
    assert rows == [0, 2, 5, 8]
    assert [each["caption"] for each in described["examples"]] == [
        split.captions[2 * row] for row in rows
    ]


def test_options_are_in_the_page(
    exported: Bundle, split: PrecompSplit, options: PageOptions, tmp_path: Path
) -> None:
    bare = replace(split, captions=[], image_of_caption=np.empty(0, np.int32), ids=None)
    chosen = replace(options, title="Scenes", max_words=None)

    write_page(changed(exported, tokenizer=UNTRAINED), bare, tmp_path / "page", chosen)

    page = json.loads((tmp_path / "page" / "page.json").read_text(encoding="utf-8"))
    assert page["title"] == "Scenes"
    assert page["limits"]["most_words"] is None
    assert (page["tokenizer"], page["abbreviations"]) == (UNTRAINED, [])
    assert page["names"][:2] == ["image 0", "image 1"]
    assert page["examples"] == []


def test_nothing_in_the_page_names_another_server() -> None:
    texts = {name: (PAGE / name).read_text(encoding="utf-8") for name in STATIC}
    policy = re.findall(
        r'http-equiv="Content-Security-Policy" content="([^"]+)"', texts["index.html"]
    )

    directives = dict(part.strip().split(" ", 1) for part in policy[0].split(";"))
    assert directives.pop("default-src") == "'none'"
    assert directives.pop("script-src") == "'self' 'wasm-unsafe-eval'"
    assert set(directives.values()) == {"'self'", "'none'"}
    urls = re.findall(r"\bhttps?://[^\s\"'<]+|[\"'(]//[^\s\"'<]+", " ".join(texts.values()))
    assert set(urls) == {"http://localhost:8000", "http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    ("spoil", "error", "expected", "hint"),
    [
        pytest.param(
            lambda bundle: with_precision(bundle, "fp16"),
            BundleError,
            naming("fp32"),
            "--precision fp32",
            id="fp16-only",
        ),
        pytest.param(
            lambda bundle: changed(bundle, tokenizer=None, vocabulary=None),
            BundleError,
            None,
            "--vocab FILE",
            id="token-ids-only",
        ),
        pytest.param(
            lambda bundle: changed(bundle, tokenizer=TRAINED),
            BundleError,
            naming(VOCABULARY, UNTRAINED),
            f"--tokenizer {VOCABULARY}",
            id="trained-punkt",
        ),
    ],
)
def test_a_bundle_that_no_page_can_be_made_of_is_refused(
    exported: Bundle,
    split: PrecompSplit,
    options: PageOptions,
    tmp_path: Path,
    spoil: Any,
    error: Any,
    expected: Any,
    hint: str,
) -> None:
    with refused(error, exported.path, expected=expected, hint=hint):
        write_page(spoil(exported), split, tmp_path / "page", options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_replaced_only_on_request(
    exported: Bundle, split: PrecompSplit, options: PageOptions, tmp_path: Path
) -> None:
    target = tmp_path / "page"
    write_page(exported, split, target, options)
    (target / "page.json").write_text("{}")

    with refused(InputError, target, hint="--force"):
        write_page(exported, split, target, options)
    assert (target / "page.json").read_text() == "{}"

    write_page(exported, split, target, replace(options, force=True))
    assert json.loads((target / "page.json").read_text())["names"] == split.ids
    assert [name for name in beside(target) if not name.endswith("-lock")] == []


@pytest.mark.parametrize("spoil", ["foreign", "no-list", "broken-list", "another-kind", "empty"])
def test_a_folder_with_anything_else_is_never_replaced(
    page: Path,
    exported: Bundle,
    split: PrecompSplit,
    options: PageOptions,
    tmp_path: Path,
    spoil: str,
) -> None:
    target = tmp_path / "page"
    target.mkdir()
    content = (page / CONTENTS).read_text(encoding="utf-8")
    if spoil != "empty":
        (target / "mine.txt").write_text("mine")
    if spoil == "broken-list":
        (target / CONTENTS).write_text("{")
    if spoil in ("foreign", "another-kind"):
        kind = "triton" if spoil == "another-kind" else "web"
        (target / CONTENTS).write_text(content.replace('"web"', f'"{kind}"'))
    before = list_files(target)

    with refused(InputError, target, hint=naming()):
        write_page(exported, split, target, replace(options, force=True))
    assert list_files(target) == before


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_on_the_way_leaves_everything_as_it_was(
    page: Path,
    exported: Bundle,
    split: PrecompSplit,
    options: PageOptions,
    tmp_path: Path,
    existing: bool,
) -> None:
    target = tmp_path / "page"
    if existing:
        write_page(exported, split, target, options)
    before = {name: (target / name).read_bytes() for name in list_files(target)}
    regions = split.regions.copy()
    regions[3, 1, 0] = np.nan

    with refused(DataError, 3):
        write_page(exported, replace(split, regions=regions), target, replace(options, force=True))

    assert {name: (target / name).read_bytes() for name in list_files(target)} == before
    assert target.exists() == existing
    assert [name for name in beside(target) if not name.endswith("-lock")] == []
