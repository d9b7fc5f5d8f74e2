"""The interface of the package `rerankers`, for code that already calls one of its rankers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError, InputError, UnavailableError

if TYPE_CHECKING:
    from rerankers.documents import Document
    from rerankers.results import RankedResults

    from sgraf_deploy.gallery.reranker import Reranker

INSTALL = "pip install 'rerankers>=0.10'"


class GalleryRanker:
    """A `Reranker` behind the methods that every ranker of the package `rerankers` has.

    `rank`, `rank_async` and `score` take what those of `rerankers` take and return its own
    `RankedResults`, `Result` and `Document`; `isinstance(ranker, BaseRanker)` holds. A document is
    a record of the gallery and is named, in this order, by `doc_ids`, by a Document's `doc_id`, or
    by its text (a Document of an image has its `image_path` last). As in `rerankers`, the `doc_id`
    of a document that has none is its place among `docs`.

    Scores are similarities. A result's document has the gallery's metadata, in which what was given
    with it takes precedence. Threads may share a ranker.

    Raises:
        UnavailableError: the package `rerankers` is not installed.

    Example:
        >>> ranker = sgraf_deploy.GalleryRanker(reranker)
        >>> results = ranker.rank("two dogs play", docs=names, doc_ids=names)
        >>> all(result.doc_id in names for result in results.top_k(3))
        True
    """

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker
        self._types = _import("rerankers.documents"), _import("rerankers.results")
        _import("rerankers.models.ranker").BaseRanker.register(type(self))

    def rank(
        self,
        query: str | NDArray[Any],
        docs: str | Document | Sequence[str] | Sequence[Document],
        doc_ids: Sequence[str] | Sequence[int] | str | int | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> RankedResults:
        """Rank records of the gallery for a query: `rerankers.results.RankedResults`, best first.

        `query` is a caption where the gallery holds images; where it holds captions, an image's
        regions (regions, img_dim) or its id in the reranker's gallery of images.

        Raises:
            InputError: another number of ids or metadata than of documents, or a document that
                names no record; and as `Reranker.rerank`.

        Example:
            >>> ranker.rank("two dogs play", ["photo0.jpg", "photo4.jpg"])[0].rank
            1
        """
        documents, records = self._documents(docs, doc_ids, metadata)
        ranked = self.reranker.rerank(query, records)
        results = []
        for rank, item in enumerate(ranked, start=1):
            document = documents[item.index]
            document.metadata = {**(item.metadata or {}), **document.metadata}
            results.append(self._types[1].Result(document, item.similarity, rank))
        found: RankedResults = self._types[1].RankedResults(results, query, has_scores=True)
        return found

    async def rank_async(
        self,
        query: str | NDArray[Any],
        docs: str | Document | Sequence[str] | Sequence[Document],
        doc_ids: Sequence[str] | Sequence[int] | str | int | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> RankedResults:
        """Do what `rank` does, in a thread: the event loop goes on meanwhile.

        Example:
            >>> import asyncio
            >>> results = asyncio.run(ranker.rank_async("two dogs play", names))
            >>> results.results_count()
            6
        """
        return await asyncio.to_thread(self.rank, query, docs, doc_ids, metadata)

    def score(self, query: str | NDArray[Any], doc: str | Document) -> float:
        """Return the similarity of a query and one record, in 0 … 1.

        Raises:
            InputError, DataError: as `rank`; a record that is not in the gallery.

        Example:
            >>> 0 < ranker.score("two dogs play", "photo0.jpg") < 1
            True
        """
        _, records = self._documents(doc, None, None)
        for record in self.reranker.rerank(query, records):
            return record.similarity
        raise DataError("document", expected="a record of the gallery", got=repr(records[0]))

    def _documents(self, docs: Any, doc_ids: Any, metadata: Any) -> tuple[list[Any], list[str]]:
        """Return a new Document for each of `docs`, and the ids of their records."""
        kind = self._types[0].Document
        given = [docs] if isinstance(docs, str | kind) else list(docs)
        ids = _listed(doc_ids, len(given), "doc_ids")
        more = _listed(metadata, len(given), "metadata")
        documents, records = [], []
        for place, (doc, doc_id, extra) in enumerate(zip(given, ids, more, strict=True)):
            document = self._copy(doc, kind)
            name = document.doc_id if doc_id is None else doc_id
            record = _first(name, document.text, document.image_path)
            if record is None:
                expected = "a doc_id, a text or an image_path, which names a record of the gallery"
                raise InputError(f"document {place}", expected=expected, got=document)
            document.doc_id = place if name is None else name
            document.metadata = dict(document.metadata if extra is None else extra)
            documents.append(document)
            records.append(str(record))
        return documents, records

    def _copy(self, doc: Any, kind: Any) -> Any:
        """Return a Document of our own: the caller's keep their ids and metadata."""
        if isinstance(doc, kind):
            names = ("text", "doc_id", "metadata", "document_type", "image_path", "base64")
            return kind(**{name: getattr(doc, name) for name in names})
        if not isinstance(doc, str):
            raise InputError("docs", expected="texts or Documents", got=type(doc).__name__)
        return kind(doc, document_type="image" if self.reranker.kind == "images" else "text")


def _import(name: str) -> ModuleType:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UnavailableError("the package rerankers", got="none", hint=INSTALL) from error


def _listed(values: Any, count: int, name: str) -> list[Any]:
    """Return the values as a list, with None for each document where there are none."""
    if values is None:
        return [None] * count
    if isinstance(values, str | int | Mapping):
        values = [values]
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if len(values) != count:
        raise InputError(name, expected=f"{count}, one for each document", got=len(values))
    return list(values)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
