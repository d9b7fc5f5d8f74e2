"""The packaged page in Chromium: it ranks as `Scorer.rerank` does, and asks no other server."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.demo.assets import demo_split, export_demo
from sgraf_deploy.package.web import PageOptions, write_page
from sgraf_deploy.runtime import RerankResult

pytestmark = pytest.mark.outside

HERE = Path(__file__).parent
SCENES = 120
MOST_WORDS = 40
BOUND = 1e-5
"""How far the similarities of two engines may lie apart in FP32."""


class Silent(http.server.SimpleHTTPRequestHandler):
    """Python's file server, which says nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder that Python serves while the block runs."""
    handler = partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    assert found is not None, f"needs one of {names}"
    return found


def browse(url: str, **plan: Any) -> dict[str, Any]:
    """What the page at an address shows, by `browse.mjs`, which says what a plan is."""
    script, modules = str(HERE / "browse.mjs"), os.environ["SGRAF_DEPLOY_NODE_MODULES"]
    ran = subprocess.run(
        ["node", script, url, modules, chromium()],
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_demo(tmp_path_factory.mktemp("demo") / "demo.sgraf").bundle


@pytest.fixture(scope="module")
def split() -> PrecompSplit:
    return demo_split(SCENES)


@pytest.fixture(scope="module")
def page(demo: Bundle, split: PrecompSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "page"
    runtime = Path(os.environ["SGRAF_DEPLOY_NODE_MODULES"])
    write_page(demo, split, folder, PageOptions(runtime, max_words=MOST_WORDS))
    return folder


@pytest.fixture
def copy(page: Path, tmp_path: Path) -> Path:
    """A copy of the page, to be damaged."""
    return shutil.copytree(page, tmp_path / "page")


def assert_ranked(answer: dict[str, Any], expected: RerankResult, names: list[str]) -> None:
    """The order is the expected one, and the similarities are within the bound."""
    ranking = answer["ranking"]
    assert answer["error"] is None
    assert len(ranking) == len(expected)
    assert sorted(item["row"] for item in ranking) == list(range(len(expected)))
    similarities = np.empty(len(expected))
    for item in ranking:
        similarities[item["row"]] = item["similarity"]
        assert item["name"] == names[item["row"]]
        assert float(item["shown"]) == pytest.approx(item["similarity"], abs=5e-5)
    found = similarities[expected.indices]
    np.testing.assert_allclose(found, expected.similarities, rtol=0, atol=BOUND)
    logits = [item["logit"] for item in ranking]
    assert logits == sorted(logits, reverse=True)
    assert np.diff(expected.logits).max() < -2 * BOUND, "take a caption without near ties"
    assert [item["row"] for item in ranking] == expected.indices.tolist()


def test_captions_are_ranked_as_the_scorer_ranks_them(
    page: Path, demo: Bundle, split: PrecompSplit
) -> None:
    captions = [
        *(split.captions[row] for row in (0, 7, 203)),
        "A red zebra, over it 2 cups.",
        "cup",
    ]
    with served(page) as url:
        report = browse(url, captions=captions, all=True)
        assert report["problems"] == []
        assert {request.startswith(url) for request in report["requests"]} == {True}
        assert len(report["requests"]) > 15

    assert report["opening"]["error"] is None
    assert report["opening"]["stuck"] is None
    with sgraf_deploy.load(demo, engine="ort", precision="fp32") as scorer:
        images = scorer.encode_images(split.regions)
        for caption, answer in zip(captions, report["answers"], strict=True):
            assert split.ids is not None
            assert_ranked(answer, scorer.rerank(caption, images), split.ids)
    unknown = [answer["unknown"] for answer in report["answers"]]
    assert unknown == [[], [], [], ["zebra", "2", "cups", "."], []]


@pytest.mark.parametrize(
    "caption",
    [
        pytest.param("", id="empty"),
        pytest.param(" \t ", id="blank"),
        pytest.param("cup " * (MOST_WORDS - 1), id="too-many-words"),
        pytest.param("a" * (16 * MOST_WORDS + 1), id="too-many-characters"),
    ],
)
def test_what_the_program_refuses_the_page_refuses(
    page: Path, demo: Bundle, split: PrecompSplit, caption: str
) -> None:
    with served(page) as url:
        report = browse(url, captions=["a red cup", caption, "a blue cup"])
    first, wrong, last = report["answers"]

    assert report["problems"] == []
    assert wrong["error"]
    assert wrong["resultsHidden"]
    assert (first["error"], last["error"]) == (None, None)
    assert not last["resultsHidden"]
    with (
        sgraf_deploy.load(demo, max_words=MOST_WORDS) as scorer,
        pytest.raises(sgraf_deploy.errors.DataError),
    ):
        scorer.rerank(caption, split.regions)


def test_the_longest_caption_is_read(page: Path) -> None:
    with served(page) as url:
        (answer,) = browse(url, captions=["cup " * (MOST_WORDS - 2)])["answers"]
    assert answer["error"] is None
    assert len(answer["words"]) == MOST_WORDS - 2


@pytest.mark.parametrize("spoil", ["absent", "short", "no-graph"])
def test_a_file_that_is_not_whole_is_named(copy: Path, spoil: str) -> None:
    name = "models/saf/scorer.onnx"
    file = copy / name
    content = file.read_bytes()
    if spoil == "absent":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if spoil == "short" else bytes(len(content)))

    with served(copy) as url:
        report = browse(url)

    assert report["opening"]["error"]
    assert (name in report["opening"]["error"]) == (spoil != "no-graph")
    assert report["opening"]["resultsHidden"]


def test_without_a_server_the_page_says_how_to_get_one(page: Path) -> None:
    opening = browse((page / "index.html").as_uri(), dead=True)["opening"]
    assert "python -m http.server" in opening["stuck"]
