"""The dialects of clients and search engines, and which of them a request is in."""

from __future__ import annotations

from collections.abc import Collection

from sgraf_deploy.serve.dialects.dialect import Dialect
from sgraf_deploy.serve.dialects.results import RESULTS
from sgraf_deploy.serve.dialects.tei import TEI
from sgraf_deploy.serve.dialects.voyage import VOYAGE
from sgraf_deploy.serve.dialects.weaviate import WEAVIATE

BY_KEY = {"texts": TEI, "property": WEAVIATE, "top_k": VOYAGE}
"""The key that tells a dialect, null or not; the first of them that is there counts."""


def dialect_of(keys: Collection[str]) -> Dialect:
    """The dialect of a request by the keys of its JSON, those of nulls included."""
    return next((dialect for key, dialect in BY_KEY.items() if key in keys), RESULTS)
