"""JSON schemas of what is sent and answered, for the description of the routes."""

from __future__ import annotations

import re
from typing import Any

from sgraf_deploy.data.bound import CHARACTERS_PER_WORD, MAX_WORDS
from sgraf_deploy.serve.settings import MOST_PIXELS, Limits, Settings

Schema = dict[str, Any]

CAPTION = r"^(?!\s*[a-zA-Z][a-zA-Z0-9+.\-]*://)(?!\s*[dD][aA][tT][aA]:)[\s\S]*[a-zA-Z0-9][\s\S]*$"
"""A caption that is no address; others than these may be captions, too."""
_ID = r"[^\x00-\x1f\x7f-\x9f]+"


def fields(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these fields, and others."""
    properties = {**required, **optional}
    return {"type": "object", "properties": properties, "required": list(required)}


def strict(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these fields and no others."""
    return {**fields(required, **optional), "additionalProperties": False}


def nullable(kind: str, **more: Any) -> Schema:
    """A value or null, which is as if it were absent."""
    return {"type": [kind, "null"], **more}


def array(items: Schema, **more: Any) -> Schema:
    """An array of values of one kind."""
    return {"type": "array", "items": items, **more}


def ref(name: str) -> Schema:
    """A schema that stands in the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(settings: Settings, regions: int, img_dim: int) -> dict[str, Schema]:
    """The components' schemas, by name; the dimensions are those of the model's images."""
    limits = settings.limits
    text: Schema = {"type": "string", "pattern": CAPTION}
    text["maxLength"] = CHARACTERS_PER_WORD * MAX_WORDS
    raw = [_raw(dtype, regions, img_dim) for dtype in ("float32", "float16")]
    stored = strict({"image_id": image_id(limits)})
    prefix = settings.image_prefix
    named: Schema = {"type": "string", "pattern": f"^{re.escape(prefix)}{_ID}$"}
    named["maxLength"] = len(prefix) + limits.id_bytes
    images: list[Schema] = [stored, *map(strict, raw)]
    captions: list[Schema] = [strict({"text": text})]
    return {
        "Image": {"anyOf": [named, *images]},
        "ImageQuery": {"anyOf": [named, *images] if prefix else images},
        "Caption": {"anyOf": [_unprefixed(text, prefix), *captions] if prefix else captions},
        "CaptionQuery": {"anyOf": [text, *captions]},
        "RerankRequest": _requests(limits),
        "Error": _error(),
        "StoredImage": {"anyOf": [_stored(each, regions) for each in raw]},
        **_answers(),
    }


def image_id(limits: Limits) -> Schema:
    """An image's id."""
    longest = limits.id_bytes  # in characters; those of two bytes or more allow fewer
    return {"type": "string", "pattern": f"^{_ID}$", "minLength": 1, "maxLength": longest}


def _raw(dtype: str, regions: int, img_dim: int) -> dict[str, Schema]:
    """The fields of an image's regions of one dtype; `format` is a name of this project's."""
    size = regions * img_dim * (4 if dtype == "float32" else 2)
    length = 4 * -(-size // 3)
    encoded = {"type": "string", "contentEncoding": "base64", "format": f"regions-{dtype}"}
    return {
        "regions": {**encoded, "minLength": length, "maxLength": length},
        "dtype": {"const": dtype},
        "shape": {"type": "array", "const": [regions, img_dim]},
    }


def _unprefixed(text: Schema, prefix: str) -> Schema:
    """A string that is a caption among documents: one without the prefix of ids."""
    return {**text, "pattern": f"^(?!{re.escape(prefix)}){text['pattern'].removeprefix('^')}"}


def _requests(limits: Limits) -> Schema:
    """Every dialect, either way."""
    count = nullable("integer", minimum=0, description="How many of the best; 0 or none for all.")
    echo = nullable("boolean", description="Whether the documents come back.")
    model = nullable("string", description="One of the server's names.")
    forms = []
    for name, documents, more in (
        ("results: Jina, vLLM, Cohere", "documents", {"top_n": count, "return_documents": echo}),
        ("TEI", "texts", {"top_n": count, "return_text": echo}),
        ("Voyage", "documents", {"top_k": count, "return_documents": echo}),
        ("Weaviate", "documents", {"property": {}}),
    ):
        needed = [key for key in ("top_k", "property") if key in more]
        for query, kind in (("CaptionQuery", "Image"), ("ImageQuery", "Caption")):
            several = array(ref(kind), minItems=1, maxItems=limits.documents)
            form = fields({"query": ref(query), documents: several}, model=model, **more)
            forms.append({**form, "title": name, "required": ["query", documents, *needed]})
    return {"anyOf": forms}


def _answers() -> dict[str, Schema]:
    number, text, integer = {"type": "number"}, {"type": "string"}, {"type": "integer"}
    item = {"index": integer, "relevance_score": number}
    warnings = fields({"warnings": array(text)})
    return {
        "Results": fields(
            {
                "id": text,
                "object": {"const": "rerank"},
                "created": integer,
                "model": text,
                "results": array(fields(item, document={"type": "object"})),
                "usage": fields({"prompt_tokens": integer, "total_tokens": integer}),
                "meta": warnings,
            }
        ),
        "TeiResults": array(fields({"index": integer, "score": number}, text=text)),
        "VoyageResults": fields(
            {
                "object": {"const": "list"},
                "data": array(fields(item, document=text)),
                "model": text,
                "usage": fields({"total_tokens": integer}),
                "meta": warnings,
            }
        ),
        "WeaviateResults": fields({"scores": array(fields({"document": text, "score": number}))}),
        "RerankResponse": {
            "anyOf": [
                ref(name) for name in ("Results", "TeiResults", "VoyageResults", "WeaviateResults")
            ]
        },
    }


def _error() -> Schema:
    text = {"type": "string"}
    error = strict({"message": text, "type": text, "param": nullable("string"), "code": text})
    return strict({"error": error, "detail": text})


def _stored(array_fields: dict[str, Schema], regions: int) -> Schema:
    side = {"type": "integer", "minimum": 1, "maximum": MOST_PIXELS}
    place = {"type": "number", "minimum": -MOST_PIXELS, "maximum": MOST_PIXELS}
    box = array(place, minItems=4, maxItems=4)
    return strict(
        array_fields,
        metadata=nullable("object"),
        boxes=nullable("array", items=box, minItems=regions, maxItems=regions),
        size=nullable("array", items=side, minItems=2, maxItems=2),
    )
