"""Splits a call over the shards of a gallery, and puts together what they answer.

An image is in the shard that the hash of its id says, whatever else the gallery holds: whoever
knows the id and the number of shards knows where it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    FailedError,
    Item,
    Part,
    RequestError,
    StoredId,
    TimedOutError,
    merge,
    missing_warnings,
)

UNANSWERED = (FailedError, TimedOutError)
"""What a shard that is down, or too slow, is answered for with."""


def shard_of(id_: str, shards: int) -> int:
    """The shard, from 0, of an image's id: XXH64 of its UTF-8, modulo the number of shards.

    Example:
        >>> [shard_of(f"photo{row}.jpg", 2) for row in range(4)]
        [0, 1, 1, 1]
    """
    from xxhash import xxh64_intdigest

    return int(xxh64_intdigest(id_.encode())) % shards


@dataclass(frozen=True, eq=False)
class Share:
    """What a shard is asked of a call, and the indices of these documents in the call."""

    shard: int
    call: Call
    indices: Sequence[int]

    def placed(self, answer: Answer) -> Answer:
        """The shard's answer with the indices of the whole call."""
        if len(self.indices) == 0 or self.indices == range(len(self.indices)):
            return answer
        items = tuple(
            Item(self.indices[item.index], item.similarity, item.logit) for item in answer.items
        )
        missing = tuple(self.indices[row] for row in answer.missing)
        return replace(answer, items=items, missing=missing)


def split(call: Call, shards: int, spare: int) -> list[Share]:
    """What the shards are asked of a whole call, without those that have nothing of it.

    Where no image is named by its id, all goes to the shard `spare`; regions beside named images
    go to the shard that has most of these. Shards tell what they lack, and `join` judges it.
    """
    told = replace(call, missing="told") if call.direction == "text_to_image" else call
    images = [call.query] if call.direction == "image_to_text" else call.documents
    places = [_place(part, shards) for part in images]
    counts = Counter(place for place in places if place is not None)
    most = counts.most_common(1)[0][0] if counts else spare
    if len(counts) <= 1:
        return [Share(most, told, range(call.pairs))]
    rows: dict[int, list[int]] = {}
    for row, place in enumerate(places):
        rows.setdefault(most if place is None else place, []).append(row)
    return [
        Share(shard, replace(told, documents=tuple(call.documents[row] for row in chosen)), chosen)
        for shard, chosen in sorted(rows.items())
    ]


def join(call: Call, shares: Sequence[Share], outcomes: Sequence[Answer | RequestError]) -> Answer:
    """The answer to a whole call, from what each of its shares was answered with.

    Shards that do not answer are left out of it, with a warning, if the call allows that and at
    least one does.

    Raises:
        RequestError: what a shard refused the call with; or that the gallery lacks a document.
    """
    pairs = list(zip(shares, outcomes, strict=True))
    answers = [share.placed(found) for share, found in pairs if isinstance(found, Answer)]
    lost: list[Share] = []
    for share, found in pairs:
        if isinstance(found, RequestError):
            if not (call.partial and answers and isinstance(found, UNANSWERED)):
                raise found
            lost.append(share)
    whole = answers[0] if len(answers) == 1 else merge(call, answers)
    if call.direction == "text_to_image":
        warnings = whole.warnings + missing_warnings(call, whole.missing)
        whole = replace(whole, warnings=warnings)
    if len(whole.bundles) > 1:
        told = "two bundles scored this while one replaces the other: their scores do not compare"
        whole = replace(whole, warnings=(*whole.warnings, told))
    return _without(whole, lost) if lost else whole


def _without(answer: Answer, lost: Sequence[Share]) -> Answer:
    """An answer that says which shards it lacks."""
    left_out = [index for share in lost for index in share.indices]
    names = ", ".join(str(share.shard) for share in lost)
    told = f"{len(left_out)} documents are left out: shard {names} of the gallery does not answer"
    return replace(
        answer,
        warnings=(*answer.warnings, told),
        missing=tuple(sorted({*answer.missing, *left_out})),
        partial=True,
    )


def _place(part: Part, shards: int) -> int | None:
    """The shard of an image; None for one that comes with the call."""
    return shard_of(part.id, shards) if isinstance(part, StoredId) else None
