"""Stock clients, unchanged, against `sgraf-deploy serve`: they get what `Scorer.rerank` gives."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import done
from support.server_process import LONGEST_S, served

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.synthetic.splits import write_split
from sgraf_deploy.demo.assets import demo_split
from sgraf_deploy.runtime import load
from sgraf_deploy.serve.keys import hash_key

pytestmark = [pytest.mark.outside, pytest.mark.clients]

ASK = Path(__file__).with_name("rerank_clients.py")
CLIENTS = {
    "apis": ["cohere Client", "cohere ClientV2", "langchain-cohere", "voyageai"],
    "litellm": [f"litellm {name}" for name in ("cohere", "jina_ai", "hosted_vllm", "huggingface")],
    "rerankers": [
        f"rerankers {name}" for name in ("cohere", "jina", "voyage", "text-embeddings-inference")
    ],
}
IMAGES, TOP = 30, 5
KEY = "a-key-of-the-test"
CLOSE = 2e-6


@dataclass(frozen=True)
class Served:
    """A server's URL, what is asked, and what a scorer answers."""

    url: str
    requests: dict[str, Any]
    expected: dict[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def environments() -> Path:
    """The folder of the environments that `make test-clients` makes."""
    variable = "SGRAF_DEPLOY_CLIENTS"
    if variable not in os.environ:
        pytest.fail(f"{variable} names no folder: run `make test-clients`")
    return Path(os.environ[variable])


@pytest.fixture(scope="module")
def server(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    split = demo_split(IMAGES)
    (folder / "scenes").mkdir()
    write_split(folder / "scenes", split)
    gallery, keys = folder / "scenes.gallery", folder / "keys"
    done("index", demo.path, "--data", folder / "scenes", "--split", "test", "-o", gallery)
    keys.write_text(f"test read {hash_key(KEY)}\n", encoding="utf-8")
    requests, expected = _asked(demo, split)
    command = ("-m", "sgraf_deploy", "serve", demo.path, "--gallery", gallery, "--keys", keys)
    with served(*command, "--port", 0) as process:
        yield Served(process.read("serving at ").split(";")[0], requests, expected)


def _asked(bundle: Bundle, split: PrecompSplit) -> tuple[dict[str, Any], dict[str, Any]]:
    """Requests by direction, and the best places and their similarities."""
    names = [f"image:{id_}" for id_ in split.ids or ()]
    assert len(names) == IMAGES
    caption, texts = split.captions[7], list(split.captions[10:40])
    requests = {
        "text_to_image": {"query": caption, "documents": names, "top": TOP},
        "image_to_text": {"query": names[3], "documents": texts, "top": TOP},
    }
    with load(bundle) as scorer:
        found = {
            "text_to_image": scorer.rerank(caption, split.regions, TOP),
            "image_to_text": scorer.rerank(split.regions[3], texts, TOP),
        }
    places = {
        name: [(item.index, item.similarity) for item in items] for name, items in found.items()
    }
    return requests, places


@pytest.mark.parametrize("group", CLIENTS)
def test_clients_get_what_the_scorer_gives(group: str, server: Served, environments: Path) -> None:
    python = environments / group / "bin" / "python"
    ran = subprocess.run(
        [python, ASK, server.url, KEY, json.dumps(server.requests)],
        check=False,
        capture_output=True,
        text=True,
        timeout=5 * LONGEST_S,
        env={"PATH": os.environ["PATH"]},
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert sorted(found) == sorted(CLIENTS[group])
    for client, answers in found.items():
        for direction, expected in server.expected.items():
            places, scores = zip(*answers[direction], strict=True)
            assert list(places) == [place for place, _ in expected], (client, direction)
            similarities = [similarity for _, similarity in expected]
            assert scores == pytest.approx(similarities, abs=CLOSE), (client, direction)
