"""`sgraf-deploy serve`: its options, its variables, and a server on a socket."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from support.cli_world import World, done, run
from support.refusals import check_error, naming
from support.server_process import LONGEST_S, served

from sgraf_deploy.cli.serve import serve
from sgraf_deploy.cli.serve_options import (
    PREFIX,
    BatchOptions,
    ListenOptions,
    RequestOptions,
    variable,
)
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.errors import InputError, UnavailableError
from sgraf_deploy.runtime import load
from sgraf_deploy.serve.keys import hash_key

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def contents(folder: Path) -> Mapping[Path, str]:
    """The digests of a folder's files, but for LMDB's table of readers."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path: sha256(path.read_bytes()).hexdigest()
        for path in files
        if not path.name.endswith("-lock")
    }


@pytest.fixture
def gallery(world: World) -> Path:
    path = world.folder / "images.gallery"
    done("index", world.bundle, "--data", world.data, "--split", "dev", "-o", path)
    return path


def ids_of(world: World) -> list[str]:
    """The ids of the split's images, as `index` gives them."""
    split = open_precomp(world.data, "dev")
    return list(split.ids or map(str, range(split.images)))


@contextmanager
def serving(world: World, gallery: Path, *options: object, **variables: str) -> Iterator[Any]:
    """A server of the command line, and its URL."""
    command = ("-m", "sgraf_deploy", "serve", world.bundle, "--gallery", gallery, "--port", 0)
    with served(*command, *options, **os.environ, **variables) as server:
        yield server, server.read("serving at ").split(";")[0]


def ask(url: str, body: Any, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/rerank", json=body, timeout=LONGEST_S, **more)


@POSIX
def test_it_answers_as_the_scorer_does_and_writes_nothing(world: World, gallery: Path) -> None:
    split = open_precomp(world.data, "dev")
    before = contents(world.folder)
    with serving(world, gallery) as (server, url):
        documents = [f"image:{id_}" for id_ in ids_of(world)]
        by_text = ask(url, {"query": "word1 word2", "documents": documents}).json()["results"]
        texts = ["word3", "word4 word5", "word6 word1"]
        by_image = ask(url, {"query": documents[2], "documents": texts}).json()["results"]
        assert httpx.get(f"{url}/readyz").status_code == 200
        server.signal(signal.SIGTERM)
        assert server.end() == (0, "")
    with load(world.bundle) as scorer:
        expected = scorer.rerank("word1 word2", np.array(split.regions))
        assert [item["index"] for item in by_text] == [item.index for item in expected]
        found = [item["relevance_score"] for item in by_text]
        assert found == pytest.approx([item.similarity for item in expected], abs=2e-6)
        expected = scorer.rerank(np.array(split.regions[2]), texts)
        assert [item["index"] for item in by_image] == [item.index for item in expected]
    assert contents(world.folder) == before


@POSIX
def test_sigterm_under_load_answers_every_accepted_request(world: World, gallery: Path) -> None:
    """Clients ask without end, over new connections; each answer that begins is whole, and who gets
    none was never read: the system resets connections that nobody has taken yet."""
    body = {
        "query": f"image:{ids_of(world)[1]}",
        "documents": [f"word{row % 40}" for row in range(400)],
    }
    with serving(world, gallery) as (server, url), ThreadPoolExecutor(8) as pool:

        def work(number: int) -> list[int]:
            codes = []
            while True:
                try:
                    codes.append(ask(url, body).status_code)
                except (httpx.ConnectError, httpx.ReadError):
                    return codes
                if number == 0 and len(codes) == 3:
                    server.signal(signal.SIGTERM)

        found = list(pool.map(work, range(8)))
        assert server.end() == (0, "")
    assert all(code == 200 for codes in found for code in codes)
    assert len(found[0]) >= 3


@POSIX
def test_keys_let_in_and_are_read_again(world: World, gallery: Path) -> None:
    keys = world.folder / "keys"
    keys.write_text(f"one read {hash_key('first')}\n")
    body = {"query": "word1", "documents": [f"image:{ids_of(world)[0]}"]}
    with serving(world, gallery, "--keys", keys) as (server, url):

        def status(key: str) -> int:
            return ask(url, body, headers={"authorization": f"Bearer {key}"}).status_code

        assert (ask(url, body).status_code, status("first"), status("second")) == (401, 200, 401)
        keys.write_text(f"two read {hash_key('second')}\n")
        server.signal(signal.SIGHUP)
        while status("second") != 200:
            pass
        assert status("first") == 401


@POSIX
def test_variables_stand_for_options(world: World, gallery: Path) -> None:
    variables = {
        f"{PREFIX}BUNDLE": str(world.bundle),
        f"{PREFIX}GALLERY": str(gallery),
        f"{PREFIX}PORT": "0",
        f"{PREFIX}SERVED_MODEL_NAME": "first second",
        f"{PREFIX}IMAGE_PREFIX": "",
        f"{PREFIX}MISSING": "skip",
        f"{PREFIX}SERVICE_HOST": "10.0.0.1",  # Kubernetes' own are no options
        f"{PREFIX}PORT_80_TCP_ADDR": "10.0.0.1",
        f"{PREFIX}MISING": "skip",
    }
    with served("-m", "sgraf_deploy", "serve", **os.environ, **variables) as server:
        url = server.read("serving at ").split(";")[0]
        found = ask(
            url, {"model": "second", "query": "word1", "documents": [ids_of(world)[0], "none"]}
        )
        assert (found.status_code, len(found.json()["results"])) == (200, 1)
        server.signal(signal.SIGTERM)
        code, errors = server.end()
    assert code == 0
    (line,) = errors.splitlines()
    assert f"{PREFIX}MISING" in line


def test_what_kubernetes_sets_for_a_service_of_that_name_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}PORT", "tcp://10.0.0.1:80")
    result = run("serve", world.bundle, "--gallery", "images.gallery")
    assert result.exit_code == 2
    assert isinstance(result.error, InputError)
    check_error(result.error, f"{PREFIX}PORT", got="tcp://10.0.0.1:80", hint="--port")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--host", "0.0.0.0"], ["0.0.0.0"]),
        (["--max-documents", "2000", "--max-queue-pairs", "1000"], ["max_queue_pairs"]),
        (["--tls-private-key", "key.pem"], ["private_key"]),
        (["--tls-certificate", "none.pem"], ["none.pem"]),
        (["--keys", "none"], ["none"]),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    world: World, gallery: Path, options: list[str], names: list[str]
) -> None:
    result = run("serve", world.bundle, "--gallery", gallery, "--port", 0, *options)
    assert result.exit_code == 2
    assert isinstance(result.error, InputError)
    check_error(result.error, *names)


def test_keys_and_no_keys_are_refused(world: World) -> None:
    keys = world.folder / "keys"
    keys.write_text(f"one read {hash_key('first')}\n")
    result = run("serve", world.bundle, "--gallery", "none", "--keys", keys, "--no-auth")
    assert isinstance(result.error, InputError)
    check_error(result.error, "--no-auth", "--keys")


def test_missing_packages_are_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("serve", world.bundle, "--gallery", "none")
    assert result.exit_code == 2
    assert isinstance(result.error, UnavailableError)
    check_error(result.error, got=naming("litestar", "uvicorn"), hint="pip install")


def test_every_option_has_a_variable_of_its_name() -> None:
    names = [variable(parameter) for parameter in serve.params]
    assert len(set(names)) == len(names) > 30
    assert all(parameter.envvar == variable(parameter) for parameter in serve.params)
    assert f"{PREFIX}MAX_WAIT_MS" in names
    assert f"{PREFIX}BUNDLE" in names


def test_the_defaults_are_those_of_the_library() -> None:
    from sgraf_deploy.serve.queue import BatchLimits
    from sgraf_deploy.serve.server import ServerOptions
    from sgraf_deploy.serve.settings import Limits, Settings

    context = serve.make_context("serve", ["b", "--gallery", "g"])
    given = context.params

    def made(kind: type[Any]) -> Any:
        return kind(**{name: given[name] for name in kind.__dataclass_fields__})

    assert made(BatchOptions).limits() == BatchLimits()
    assert made(ListenOptions).options() == ServerOptions()
    settings = made(RequestOptions).settings()
    assert settings == Settings(limits=Limits(body_bytes=settings.limits.body_bytes))
