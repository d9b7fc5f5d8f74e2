"""The description of the routes: every example of it is answered, every route stands in it."""

from __future__ import annotations

from typing import Any

import pytest
from support.served import Client, Server

from sgraf_deploy.serve.metrics import ROUTES
from sgraf_deploy.serve.openapi import examples, image_example
from sgraf_deploy.serve.settings import Settings


@pytest.fixture
def description(server: Server) -> Any:
    return server.talk(lambda client: client.http.get("/openapi.json")).json()


def test_every_route_is_described(description: Any) -> None:
    assert description["openapi"].startswith("3.1")
    assert set(description["paths"]) == set(ROUTES)
    names = [
        operation["operationId"]
        for path in description["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    ]
    assert len(set(names)) == len(names) == 12


def test_every_reference_is_to_something(description: Any) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [one for value in part.values() for one in references(value)]
        return (
            [one for value in part for one in references(value)] if isinstance(part, list) else []
        )

    found = references(description)
    assert len(found) > 20
    known = {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
    assert set(found) == known - {"#/components/schemas/x"}


@pytest.mark.parametrize("prefix", ["image:", ""])
def test_every_example_is_answered(server: Server, prefix: str) -> None:
    async def conversation(client: Client) -> int:
        described = (await client.http.get("/openapi.json")).json()["paths"]
        sent = 0
        for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
            shown = described[path]["post"]["requestBody"]["content"]["application/json"]
            for name, example in shown["examples"].items():
                response = await client.rerank(example["value"], path)
                assert response.status_code == 200, (name, response.text)
                sent += 1
        shown = described["/v1/images/{id}"]["put"]["requestBody"]["content"]["application/json"]
        for example in shown["examples"].values():
            response = await client.http.put("/v1/images/new", json=example["value"])
            assert response.status_code == 200
            sent += 1
        return sent

    sent = server.talk(conversation, Settings(image_prefix=prefix))
    assert sent == 3 * len(examples(prefix)) + 1


def test_a_large_model_shows_no_regions() -> None:
    assert image_example(4, 6) is not None
    assert image_example(36, 2048) is None


def test_keys_are_described_where_they_are_needed(server: Server) -> None:
    async def read(client: Client) -> Any:
        headers = {"authorization": "Bearer key-that-reads-0123456789"}
        return (await client.http.get("/openapi.json", headers=headers)).json()

    described = server.talk(read, keyed=True)
    assert "securitySchemes" in described["components"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                public = path in {"/healthz", "/readyz"}
                assert ("security" in operation) is not public
                assert ("401" in operation["responses"]) is not public
