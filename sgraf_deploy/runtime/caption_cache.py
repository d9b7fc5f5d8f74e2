"""The encodings of the captions that were asked for last, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock

from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.runtime.tokens import TokenIds

DEFAULT_CACHE_BYTES = 64 * 2**20
"""What a scorer keeps if it is not told otherwise: at the paper's dimensions about 500 captions of
14 words, each encoded by two members."""

ENTRY_BYTES, ARRAY_BYTES = 512, 128
"""What Python takes for an entry, and for each array in it, beside their numbers."""

CachedCaption = Mapping[str, tuple[Array, Array]]
"""By member, a caption's words (words, embed) and its global vector (embed,), as stored."""


class CaptionCache:
    """Finds captions by their token ids; those that were used longest ago make room for new ones.

    Threads may share it. An entry is never changed, so that it may be read without a lock.
    """

    def __init__(self, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Keep entries of so many bytes in all; nothing is kept of 0."""
        self.max_bytes = max_bytes
        self._lock = Lock()
        self._entries: OrderedDict[bytes, tuple[CachedCaption, int]] = OrderedDict()
        self._bytes = 0
        self.hits = self.misses = 0
        """Captions that were asked for and found, and those that were not."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """What is kept, in bytes: never more than `max_bytes`."""
        return self._bytes

    def find(self, captions: Sequence[TokenIds]) -> list[CachedCaption | None]:
        """Look captions up; None for one that is not kept. What is found counts as used now."""
        if not self.max_bytes:
            return [None] * len(captions)
        keys = [caption.tobytes() for caption in captions]
        with self._lock:
            found = [self._find(key) for key in keys]
            missed = sum(each is None for each in found)
            self.hits += len(found) - missed
            self.misses += missed
        return found

    def keep(self, caption: TokenIds, encoded: CachedCaption) -> None:
        """Keep a caption's encoding, in arrays of its own: a view would hold all of its base."""
        key, arrays = caption.tobytes(), [each for pair in encoded.values() for each in pair]
        size = ENTRY_BYTES + len(key) + sum(ARRAY_BYTES + array.nbytes for array in arrays)
        if size > self.max_bytes:
            return
        with self._lock:
            self._drop(key)
            while self._bytes + size > self.max_bytes:
                self._drop(next(iter(self._entries)))
            self._entries[key] = encoded, size
            self._bytes += size

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _find(self, key: bytes) -> CachedCaption | None:
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def _drop(self, key: bytes) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
