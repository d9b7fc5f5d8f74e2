"""The command line's service on Ray: keys, a gallery that is read only, and who can reach it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve.test_requests import check_refused
from support.cli_world import done, run
from support.ray_processes import listening_of
from support.ray_service import LONGEST_S, free_port, sharded_galleries
from support.refusals import check_error
from support.served import READER, WRITER, bearer, regions_of
from support.small_galleries import BOXES, IMAGE_IDS, REGIONS

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import load
from sgraf_deploy.serve.keys import hash_key

pytestmark = pytest.mark.ray

IMAGE = "/v1/images/"


@dataclass(frozen=True)
class Deployed:
    """A service that the command line deployed."""

    http: httpx.Client
    config: Path
    keys: Path
    port: int


@pytest.fixture(scope="module")
def deployed(
    cluster: Any, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("service")
    with load(bundle, engine="ort") as scorer:
        galleries = sharded_galleries(scorer, folder / "galleries", 2)
    keys, config, port = folder / "keys", folder / "config.yaml", free_port()
    keys.write_text(f"reader read {hash_key(READER)}\nwriter write {hash_key(WRITER)}\n")
    config.write_text(
        f"bundle: {bundle.path}\ngalleries: [{', '.join(galleries)}]\naddress: {cluster.address}\n"
    )
    command = [sys.executable, "-m", "sgraf_deploy", "serve", "--ray", str(config)]
    try:
        ran = subprocess.run(
            [*command, "--engine", "ort", "--keys", str(keys), "--port", str(port)],
            capture_output=True,
            check=False,
            text=True,
            timeout=4 * LONGEST_S,
        )
        assert ran.returncode == 0, ran.stderr
        url = f"http://127.0.0.1:{port}"
        assert f"serving at {url}" in ran.stdout
        with httpx.Client(base_url=url, timeout=LONGEST_S, headers=bearer(READER)) as http:
            yield Deployed(http, config, keys, port)
    finally:
        done("serve", "--ray", config, "--stop")


def test_every_server_listens_on_loopback_alone(deployed: Deployed, ray_folder: Path) -> None:
    listening = listening_of(ray_folder)

    assert {host for host, _ in listening} == {"127.0.0.1"}
    assert deployed.port in {port for _, port in listening}


def test_keys_decide(deployed: Deployed) -> None:
    body = {"query": "a dog", "documents": [f"image:{IMAGE_IDS[0]}"]}
    for key, status in ((READER, 200), (WRITER, 200), ("other", 401)):
        found = deployed.http.post("/rerank", json=body, headers=bearer(key))
        assert found.status_code == status
    check_refused(deployed.http.get(IMAGE + "x", headers={"authorization": ""}), 401)
    check_refused(deployed.http.put(IMAGE + "x", json={}), 403, "read_only_key")


def test_the_gallery_is_read_and_not_changed(deployed: Deployed) -> None:
    for row, id_ in enumerate(IMAGE_IDS):
        found = deployed.http.get(IMAGE + id_)
        assert (found.status_code, found.json()) == (200, {"id": id_}), row
    check_refused(deployed.http.get(IMAGE + "none"), 404, "image_not_found")
    body = {**regions_of(REGIONS[0]), "boxes": BOXES.tolist()}
    for method, sent in (("PUT", body), ("DELETE", None)):
        response = deployed.http.request(method, IMAGE + "x", headers=bearer(WRITER), json=sent)
        assert "sgraf-deploy index" in check_refused(response, 409, "read_only")
    described = deployed.http.get("/openapi.json").json()["paths"][f"{IMAGE}{{id}}"]
    assert "409" in described["put"]["responses"]
    assert "409" in described["delete"]["responses"]


def test_it_is_ready(deployed: Deployed) -> None:
    assert deployed.http.get("/readyz").status_code == 200
    assert deployed.http.get("/healthz").status_code == 200


def test_metrics_are_those_of_every_process_whichever_answers(deployed: Deployed) -> None:
    body = {"query": "a dog", "documents": [f"image:{id_}" for id_ in IMAGE_IDS]}

    def counted() -> dict[str, dict[str, float]]:
        """The samples of some names, by the replica that they are of."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        text = deployed.http.get("/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                shard, replica = (sample.labels.get(name, "") for name in ("shard", "replica"))
                if sample.labels.get("route", "/rerank") == "/rerank":
                    found[sample.name][f"{shard}.{replica}"] = sample.value
        return found

    before = counted()
    assert deployed.http.post("/rerank", json=body).status_code == 200
    after = counted()

    pairs, images = after["sgraf_batch_pairs_sum"], after["sgraf_gallery_images"]
    assert set(pairs) == set(images) == set(after["sgraf_queue_pairs"])
    assert sorted(name.split(".")[0] for name in pairs) == ["0", "0", "1", "1"]
    assert sum(images.values()) == 2 * len(IMAGE_IDS)
    for name, more in (
        ("sgraf_batch_pairs_sum", len(IMAGE_IDS)),
        ("sgraf_scored_pairs_total", len(IMAGE_IDS)),
        ("sgraf_request_duration_seconds_count", 1),
    ):
        assert sum(after[name].values()) - sum(before[name].values()) == more
    assert len(after["sgraf_request_duration_seconds_count"]) == 2
    assert set(after["process_start_time_seconds"]) == {
        *pairs,
        *after["sgraf_request_duration_seconds_count"],
    }


def test_another_address_is_refused_while_it_serves(deployed: Deployed) -> None:
    port = free_port()
    options = ["--engine", "ort", "--keys", deployed.keys, "--port", port]
    result = run("serve", "--ray", deployed.config, *options)

    assert result.exit_code == 2
    assert isinstance(result.error, InputError)
    check_error(result.error, "port", hint="--stop")
    assert deployed.http.get("/readyz").status_code == 200


def test_a_shard_that_no_node_has_is_told(deployed: Deployed) -> None:
    config = deployed.config.with_name("placed.yaml")
    config.write_text(f"{deployed.config.read_text()}resource: disk\n")
    result = run("serve", "--ray", config, "--engine", "ort", "--port", deployed.port)

    assert result.exit_code == 2
    assert isinstance(result.error, InputError)
    check_error(result.error, "disk-0", hint="ray start")


def test_importing_everything_loads_no_ray(ray_environment: None) -> None:
    modules = "cluster", "config", "front", "online", "replica", "shards"
    code = "".join(f"import sgraf_deploy.distributed.{name}\n" for name in modules)
    code = f"import sys\nimport sgraf_deploy\n{code}sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
