"""A scorer and its gallery as a service: everything put together."""

from __future__ import annotations

from collections.abc import Callable

from sgraf_deploy.errors import InputError
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.serve.answering import Answerer
from sgraf_deploy.serve.app import build_app
from sgraf_deploy.serve.batcher import Batcher
from sgraf_deploy.serve.keys import Keys
from sgraf_deploy.serve.metrics import Metrics
from sgraf_deploy.serve.queue import BatchLimits
from sgraf_deploy.serve.server import Ended, ServerOptions, is_loopback, serve
from sgraf_deploy.serve.settings import Settings


def check_exposure(host: str, keys: Keys | None, *, open_to_all: bool) -> None:
    """Refuse an address that others reach without keys, unless it is to be open to all.

    Raises:
        InputError: there are no keys; or there are, and it is to be open to all; or no such host.
    """
    if keys is not None and open_to_all:
        raise InputError("--no-auth and --keys", expected="one of them", got="both")
    if keys is None and not open_to_all and not is_loopback(host):
        raise InputError(
            f"--host {host}",
            expected="keys, as others than this machine reach the server there",
            got="none",
            hint="name a file with --keys; --no-auth lets everyone in",
        )


def check_queue(limits: BatchLimits, settings: Settings) -> None:
    """Refuse a queue that could never take a request of as many documents as are allowed.

    Raises:
        InputError: it is too short.
    """
    if limits.max_queue_pairs < settings.limits.documents:
        expected = f"at least {settings.limits.documents}, the documents that a request may have"
        raise InputError("max_queue_pairs", expected=expected, got=limits.max_queue_pairs)


def run_service(
    scorer: Scorer,
    gallery: Gallery,
    settings: Settings,
    limits: BatchLimits,
    options: ServerOptions,
    *,
    keys: Keys | None,
    started: Callable[[str], None],
) -> Ended:
    """Answer requests about a gallery of images until a signal comes; in the main thread.

    Nothing is written, unless a client with a key that may writes images into the gallery.

    Raises:
        InputError: limits that contradict each other, or an address that cannot be listened at.
        DataError: a gallery that the scorer cannot use.
    """
    check_queue(limits, settings)
    metrics = Metrics()
    answerer = Answerer(scorer, gallery, timings=metrics)
    batcher = Batcher(answerer.answer_many, limits, observer=metrics)
    app = build_app(batcher, scorer, gallery, settings, keys=keys, metrics=metrics)
    reload = None if keys is None else keys.reload
    return serve(app, batcher, options, started=started, reload=reload)
