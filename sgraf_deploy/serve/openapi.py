"""The description of the routes in OpenAPI 3.1, with examples."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from sgraf_deploy import __version__
from sgraf_deploy.serve.schemas import Schema, image_id, ref, schemas
from sgraf_deploy.serve.settings import PARTIAL_HEADER, TIMEOUT_HEADER, Settings

SHOWN_BYTES = 4096
"""Regions of more bytes are left out of the example of an image."""

_WHY = {
    400: "The body is no JSON object, or nested too deep.",
    401: "The API key is missing or unknown.",
    403: "The API key may only read.",
    404: "A model or an image that does not exist.",
    409: "The gallery takes no changes here.",
    408: "The body did not arrive in time.",
    413: "A limit is exceeded.",
    415: "The body is not declared as plain JSON.",
    422: "What was sent cannot be scored or stored.",
    429: "The queue is full; Retry-After says when to come again.",
    503: "The engine failed, or the server is about to stop.",
    504: "The deadline passed.",
}
_BODY = (400, 408, 413, 415, 422)


def examples(prefix: str) -> dict[str, dict[str, Any]]:
    """Requests of every dialect, by name: images for a caption, and captions for an image.

    They hold for a gallery with the images `photo0.jpg`, `photo1.jpg` and `photo2.jpg`.
    """
    ids = ["photo0.jpg", "photo1.jpg", "photo2.jpg"]
    named = [f"{prefix}{id_}" for id_ in ids]
    caption, texts = "a dog runs on the beach", ["a cat sleeps", "a dog runs on the beach"]
    found: dict[str, dict[str, Any]] = {
        "images for a caption": {"query": caption, "documents": named, "top_n": 2},
        "images by objects": {"query": caption, "documents": [{"image_id": id_} for id_ in ids]},
        "TEI": {"query": caption, "texts": named, "return_text": True},
        "Voyage": {"query": caption, "documents": named, "top_k": 1},
        "Weaviate": {"query": caption, "documents": named, "property": ""},
        "captions for an image": {
            "query": {"image_id": ids[0]},
            "documents": [{"text": text} for text in texts],
            "return_documents": True,
        },
    }
    if prefix:
        found["captions for an image by strings"] = {"query": named[1], "documents": texts}
    return found


def image_example(regions: int, img_dim: int) -> dict[str, Any] | None:
    """An image to store; None where it is too large to be shown."""
    size = 2 * regions * img_dim
    if size > SHOWN_BYTES:
        return None
    encoded = base64.b64encode(b"\0\x3c" * (regions * img_dim)).decode()  # ones
    shape = [regions, img_dim]
    return {"regions": encoded, "dtype": "float16", "shape": shape, "metadata": {"album": "summer"}}


def description(
    settings: Settings, regions: int, img_dim: int, *, keyed: bool, read_only: bool = False
) -> dict[str, Any]:
    """The whole description; `keyed` says whether requests need a key.

    Where the images are `read_only`, 409 stands beside what would change them.
    """
    routes = _Routes(keyed)
    shown = {name: {"value": value} for name, value in examples(settings.image_prefix).items()}
    rerank = {"schema": ref("RerankRequest"), "examples": shown}
    stored: dict[str, Any] = {"schema": ref("StoredImage")}
    example = image_example(regions, img_dim)
    if example is not None:
        stored["examples"] = {"an image of ones": {"value": example}}
    paths: dict[str, Any] = {
        path: {"post": routes.rerank(f"rerank{path.replace('/', '_')}", rerank)}
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    }
    refused = [409] if read_only else []
    put = routes.operation(
        "put_image",
        "Store an image; it is on the disk when this is answered.",
        [403, *_BODY, 503, *refused],
        stored,
    )
    put["responses"]["200"]["links"] = {
        name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
        for name in ("get_image", "delete_image")
    }
    paths["/v1/images/{id}"] = {
        "parameters": [_id_parameter(settings)],
        "get": routes.operation("get_image", "What is kept beside an image's regions.", [404, 422]),
        "put": put,
        "delete": routes.operation(
            "delete_image", "Delete an image.", [403, 404, 422, 503, *refused]
        ),
    }
    for path, what in (
        ("/v1/models", "The names that requests may use."),
        ("/meta", "What Weaviate asks for when it starts."),
        ("/openapi.json", "This description."),
    ):
        paths[path] = {"get": routes.operation(path.strip("/").replace("/", "_"), what)}
    paths["/metrics"] = {
        "get": routes.operation("metrics", "For Prometheus.", kind="text/plain", schema={})
    }
    paths["/healthz"] = {"get": routes.operation("healthz", "The process runs.", public=True)}
    paths["/readyz"] = {
        "get": routes.operation("readyz", "The engine answers.", [503], public=True)
    }
    components: dict[str, Any] = {"schemas": schemas(settings, regions, img_dim)}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "sgraf-deploy", "version": __version__},
        "paths": paths,
        "components": components,
    }


class _Routes:
    """Describes operations of a server with or without keys."""

    def __init__(self, keyed: bool) -> None:
        self._keyed = keyed

    def rerank(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """One of the routes that rerank."""
        summary = "Rank images for a caption, or captions for an image."
        errors = [*_BODY, 404, 429, 503, 504]
        found = self.operation(name, summary, errors, body, schema=ref("RerankResponse"))
        found["parameters"] = [
            {
                "name": TIMEOUT_HEADER,
                "in": "header",
                "description": "Shortens the deadline; milliseconds.",
                "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
            },
            {
                "name": PARTIAL_HEADER,
                "in": "header",
                "description": "Takes the answer of a part of the gallery where another is down.",
                "schema": {"type": "string", "enum": ["true", "false"]},
            },
        ]
        return found

    def operation(
        self,
        name: str,
        summary: str,
        errors: Sequence[int] = (),
        body: dict[str, Any] | None = None,
        *,
        schema: Schema | None = None,
        kind: str = "application/json",
        public: bool = False,
    ) -> dict[str, Any]:
        """One operation: what it takes, and what it answers with."""
        content = {kind: {"schema": {"type": "object"} if schema is None else schema}}
        found: dict[str, Any] = {
            "operationId": name,
            "summary": summary,
            "responses": {"200": {"description": "Answered.", "content": content}},
        }
        locked = self._keyed and not public
        for status in sorted({*errors, *([401] if locked else [])}):
            if status == 403 and not locked:
                continue
            found["responses"][str(status)] = {
                "description": _WHY[status],
                "content": {"application/json": {"schema": ref("Error")}},
            }
        if body is not None:
            found["requestBody"] = {"required": True, "content": {"application/json": body}}
        if locked:
            found["security"] = [{"key": []}]
        return found


def _id_parameter(settings: Settings) -> dict[str, Any]:
    text = "The image's id, percent-encoded in UTF-8; slashes are part of it."
    schema = image_id(settings.limits)
    return {"name": "id", "in": "path", "required": True, "description": text, "schema": schema}
