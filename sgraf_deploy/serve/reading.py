"""One request for reranking, from the JSON of any dialect to a `Call`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    CaptionText,
    NotFoundError,
    UnprocessableError,
)
from sgraf_deploy.serve.dialects import dialect_of
from sgraf_deploy.serve.dialects.dialect import Dialect
from sgraf_deploy.serve.documents import Reader, Sent, Whole, decode_fields, malformed
from sgraf_deploy.serve.settings import Settings

MOST_WARNINGS = 16
_NULL = b"null"
_NAME = msgspec.json.Decoder(str)
_FLAG = msgspec.json.Decoder(bool)
_WHOLE: msgspec.json.Decoder[Whole] = msgspec.json.Decoder(Whole)


class Asked(msgspec.Struct, frozen=True, eq=False):
    """A request that was read: the call, and what its answer is written with."""

    call: Call
    dialect: Dialect
    sent: Sequence[Sent]
    model: str
    echo: bool
    warnings: tuple[str, ...]

    def told(self, answer: Answer) -> Answer:
        """The answer with the warnings of the request in front of its own."""
        if not self.warnings:
            return answer
        return replace(answer, warnings=self.warnings + answer.warnings)


def read_request(body: bytes, reader: Reader) -> Asked:
    """Read a request; raises a RequestError for one that cannot be answered as asked."""
    everything = decode_fields(body)
    dialect = dialect_of(everything)
    fields = {name: raw for name, raw in everything.items() if bytes(raw) != _NULL}
    model = _model(fields, reader.settings)
    for name in ("query", dialect.documents):
        if name not in fields:
            raise UnprocessableError(
                "the request",
                expected=f"query and {dialect.documents}",
                got=f"no {name}",
                param=name,
                code="missing_field",
            )
    documents, sent = reader.documents(fields[dialect.documents], dialect.documents)
    query = reader.query(fields["query"], isinstance(documents[0], CaptionText))
    top_n = _count(fields, dialect.top)
    echo = _decoded(fields, dialect.echo, _FLAG, "true or false")
    settings = reader.settings
    call = Call(
        query,
        documents,
        min(top_n or len(documents), len(documents)),
        settings.missing,
        settings.truncate,
    )
    return Asked(call, dialect, sent, model, bool(echo), _ignored(fields, dialect))


def _model(fields: Mapping[str, msgspec.Raw], settings: Settings) -> str:
    """The name that the client uses, which the answer repeats."""
    model = _decoded(fields, "model", _NAME, "a string")
    if model is None:
        return settings.models[0]
    if model not in settings.models:
        raise NotFoundError(
            "model",
            expected=" or ".join(settings.models),
            got=repr(model[:60]),
            hint="send one of these names, or none; --served-model-name gives others",
            param="model",
            code="model_not_found",
        )
    return str(model)


def _count(fields: Mapping[str, msgspec.Raw], name: str | None) -> int:
    """How many documents the client wants; 0 for all."""
    expected = "an integer of at least 0; 0 is all"
    count = _decoded(fields, name, _WHOLE, expected)
    if count is None:
        return 0
    if count < 0 or count != int(count):
        raise _wrong(str(name), expected)
    return int(count)


def _decoded(
    fields: Mapping[str, msgspec.Raw],
    name: str | None,
    decoder: msgspec.json.Decoder[Any],
    expected: str,
) -> Any:
    """A field's value, None if it is absent."""
    if name is None or name not in fields:
        return None
    try:
        return decoder.decode(fields[name])
    except msgspec.ValidationError as error:
        raise _wrong(name, expected) from error
    except msgspec.DecodeError as error:
        raise malformed(error) from error


def _wrong(name: str, expected: str) -> UnprocessableError:
    return UnprocessableError(
        name, expected=expected, got="another value", param=name, code="invalid_field"
    )


def _ignored(fields: Mapping[str, msgspec.Raw], dialect: Dialect) -> tuple[str, ...]:
    """A warning for each field that means nothing here."""
    names = [name for name in fields if name not in dialect.fields]
    return tuple(f"the field {name[:40]!r} is ignored" for name in names[:MOST_WARNINGS])
