"""A static page that ranks a split's images for a typed caption, in the browser.

    index.html, style.css, icon.svg, app.js, model.js, tokenizer.js    as they lie in `page/`
    page.json                      what the page shows, reads and loads
    runtime/                       ONNX Runtime for browsers, from the user's npm folder
    models/MEMBER/GRAPH.onnx       the fp32 graphs that a caption needs
    images/MEMBER/NAME.bin         the encoded images: float32, little-endian, in C order
    contents.json                  every file with its hash

Images are encoded here and not in the page: then it needs no image encoder, and is ready at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sgraf_deploy import __version__
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import EXPORT_AGAIN, FileRef
from sgraf_deploy.config import GraphName
from sgraf_deploy.data.bound import CHARACTERS_PER_WORD, MAX_WORDS
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import spread
from sgraf_deploy.data.tokenizer import UNTRAINED, VOCABULARY, abbreviations
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import BundleError
from sgraf_deploy.package.browser_runtime import WASM, BrowserRuntime, read_runtime
from sgraf_deploy.package.contents import Contents, Package, read_contents, staged_package
from sgraf_deploy.progress import Stage
from sgraf_deploy.runtime.encoded import EncodedImages, image_row
from sgraf_deploy.runtime.scorer import load

STATIC = ("index.html", "style.css", "icon.svg", "app.js", "model.js", "tokenizer.js")
"""The files of `page/` that a package holds unchanged."""

GRAPHS: tuple[GraphName, ...] = ("text_encoder", "scorer")
"""The graphs that run in the page."""

EXAMPLES = 4
"""The captions of the split that the page offers, of images at equal distances."""

TITLE = "Which image is it?"

_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class PageOptions:
    """What a page is made with: npm's folder, its title, and the longest caption that it reads.

    `max_words` counts `<start>` and `<end>`; None means no limit. `force` replaces a page.
    """

    runtime: Path
    title: str = TITLE
    max_words: int | None = MAX_WORDS
    force: bool = False


def write_page(
    bundle: Bundle,
    split: PrecompSplit,
    target: Path,
    options: PageOptions,
    *,
    stage: Stage = lambda name: None,
) -> Contents:
    """Write the page for a bundle and the images of a split into the folder `target`.

    `stage` is told of the encoding of the images. Raises BundleError for a bundle without fp32
    graphs or vocabulary, or with a tokenizer that no page can have; what `read_runtime` and
    `staged_package` raise; and DataError for regions that do not fit the bundle.

    Example:
        >>> contents = write_page(bundle, split, Path("page"), PageOptions(Path("node_modules")))
        >>> contents.kind, (Path("page") / "index.html").exists()
        ('web', True)
    """
    vocabulary = check_bundle(bundle)
    runtime = read_runtime(options.runtime)
    with staged_package(target, "web", bundle, force=options.force) as package:
        for name in STATIC:
            package.put(name, (_PAGE / name).read_bytes())
        files = {
            name: package.put(f"runtime/{name}", runtime.files[name]) for name in runtime.files
        }
        with load(bundle, precision="fp32", device="cpu") as scorer:
            images = scorer.encode_images(split.regions, progress=stage("encoding images"))
            members = [_write_member(package, bundle, images, name) for name in scorer.members]
        loaded = [files[WASM], *(ref for member in members for ref in member.files)]
        page = _Page(bundle, split, options, vocabulary, runtime)
        description = page.describe(loaded, [member.described for member in members])
        package.put("page.json", json.dumps(description, ensure_ascii=False, allow_nan=False))
    return read_contents(target)


def check_bundle(bundle: Bundle) -> Vocabulary:
    """The vocabulary of a bundle that a page can be made of; BundleError for any other."""
    manifest = bundle.manifest
    if "fp32" not in manifest.precisions:
        raise BundleError(
            f"bundle {bundle.path} for a page",
            expected="fp32 graphs, which browsers run",
            got=" and ".join(manifest.precisions),
            hint=f"{EXPORT_AGAIN} and `--precision fp32`",
        )
    vocabulary = Vocabulary.load(bundle.vocabulary_path())
    if manifest.tokenizer not in (VOCABULARY, UNTRAINED):
        raise BundleError(
            f"bundle {bundle.path} for a page",
            expected=f"the tokenizer {VOCABULARY} or {UNTRAINED}",
            got=manifest.tokenizer,
            hint=f"the page has no trained Punkt: {EXPORT_AGAIN} and `--tokenizer {VOCABULARY}`",
        )
    return vocabulary


@dataclass(frozen=True)
class _Member:
    """A member's files, and what page.json says of it."""

    files: tuple[FileRef, ...]
    described: dict[str, Any]


def _write_member(package: Package, bundle: Bundle, images: EncodedImages, name: str) -> _Member:
    """Write a member's graphs, and of its encoded images what its scorer takes."""
    described: dict[str, Any] = {"name": name, "images": []}
    files = []
    for graph in GRAPHS:
        content = bundle.graph_path(name, graph, "fp32").read_bytes()
        files.append(package.put(f"models/{name}/{graph}.onnx", content))
        described[graph] = files[-1].file
    buffers = images.members[name].named
    for spec in bundle.graph(name, "scorer", "fp32").signature.inputs:
        if spec.name in buffers:
            values = np.asarray(images.origin.engine.fetch(buffers[spec.name]), dtype="<f4")
            files.append(package.put(f"images/{name}/{spec.name}.bin", values.tobytes()))
            shape = list(image_row(spec))
            described["images"].append({"name": spec.name, "path": files[-1].file, "shape": shape})
    return _Member(tuple(files), described)


@dataclass(frozen=True, eq=False)
class _Page:
    """What page.json is made of."""

    bundle: Bundle
    split: PrecompSplit
    options: PageOptions
    vocabulary: Vocabulary
    runtime: BrowserRuntime

    def describe(self, loaded: list[FileRef], members: list[dict[str, Any]]) -> dict[str, Any]:
        """The object that `app.js` reads; `loaded` are the files that it waits for."""
        manifest, split = self.bundle.manifest, self.split
        known = abbreviations(self.vocabulary.words) if manifest.tokenizer == VOCABULARY else ()
        return {
            "title": self.options.title,
            "program": __version__,
            "runtime": self.runtime.version,
            "bundle": {
                "name": self.bundle.path.name,
                "sha256": self.bundle.sha256,
                "module": manifest.module,
                "members": list(manifest.members),
            },
            "limits": {
                "most_words": self.options.max_words,
                "characters_per_word": CHARACTERS_PER_WORD,
            },
            "tokenizer": manifest.tokenizer,
            "abbreviations": sorted(known),
            "vocabulary": list(self.vocabulary.words),
            "names": [split.image_name(row) for row in range(split.images)],
            "examples": list(_examples(split)),
            "wasm": loaded[0].file,
            "members": members,
            "downloads": [{"path": ref.file, "bytes": ref.bytes} for ref in loaded],
        }


def _examples(split: PrecompSplit) -> Iterator[dict[str, Any]]:
    """A caption of each of a few images; none of a split without captions."""
    if split.captions:
        for row in spread(split.images, EXAMPLES).tolist():
            yield {"caption": split.captions[row * split.captions_per_image], "image": row}
