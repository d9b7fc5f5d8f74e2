"""The servers that `benchmarks/serve.py` compares: `serve_server.py BUNDLE GALLERY MODE THREADS`.

Modes: `batched` is `sgraf-deploy serve`; `single` gives the engine's thread one request at a time;
`callers` answers each request in one of eight threads; `stub` answers without a scorer.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sgraf_deploy.cli.terminal import echo
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.scorer import load
from sgraf_deploy.serve.answering import Answerer
from sgraf_deploy.serve.app import build_app
from sgraf_deploy.serve.batcher import Batcher
from sgraf_deploy.serve.calls import Answer, Call, Item
from sgraf_deploy.serve.metrics import Metrics
from sgraf_deploy.serve.queue import Batch, BatchLimits, Entry, Queue
from sgraf_deploy.serve.server import ServerOptions, serve

CALLERS = 8


class OneByOne(Queue):
    """Gives the engine one call at a time."""

    def take(self) -> Batch:
        """The oldest call."""
        entry: Entry = next(iter(self))
        self.drop(entry)
        return [(entry, entry.take(entry.waiting))]


class Callers(Batcher):
    """Answers each call in a thread of a pool."""

    pool = ThreadPoolExecutor(CALLERS)

    async def submit(self, call: Call, timeout_s: float, *, urgent: bool = False) -> Answer:
        """Answer one call alone."""
        loop = asyncio.get_running_loop()
        (found,) = await loop.run_in_executor(self.pool, self._run, [call])
        if isinstance(found, Exception):
            raise found
        return found


def stub(calls: Sequence[Call]) -> list[Answer]:
    """Answers without looking."""
    return [
        Answer(tuple(Item(at, 0.5, 0.0) for at in range(call.pairs)), tokens=9) for call in calls
    ]


def main() -> None:
    """Serve until SIGTERM; prints the URL."""
    bundle, path, mode, threads = sys.argv[1:]
    options = EngineOptions(threads=int(threads))
    with Gallery.open(Path(path)) as gallery, load(bundle, options=options) as scorer:
        metrics = Metrics()
        run: Any = stub
        if mode != "stub":
            run = Answerer(scorer, gallery, timings=metrics).answer_many
        kind = Callers if mode == "callers" else Batcher
        batcher = kind(run, BatchLimits(), observer=metrics)
        if mode == "single":
            batcher._queue = OneByOne(1)
        app = build_app(batcher, scorer, gallery, metrics=metrics)
        serve(app, batcher, ServerOptions(port=0), started=echo)


if __name__ == "__main__":
    main()
