"""A server of a few small images, for `make test-api`: `python tests/api/server.py FOLDER`.

It prints its address, and goes on until SIGTERM. Nothing outside FOLDER is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main(folder: Path) -> None:
    """Serve the images of `support.small_galleries`, which the description's examples name."""
    from support.onnx_bundles import write_bundle
    from support.small_galleries import image_gallery

    from sgraf_deploy.runtime import load
    from sgraf_deploy.serve.queue import BatchLimits
    from sgraf_deploy.serve.server import ServerOptions
    from sgraf_deploy.serve.service import run_service
    from sgraf_deploy.serve.settings import Limits, Settings

    bundle = write_bundle(folder / "small.sgraf")
    settings = Settings(limits=Limits(body_bytes=2**20, documents=50, body_s=5.0))
    with load(bundle, engine="ort", threads=1) as scorer:
        gallery = image_gallery(scorer, folder / "images")
        run_service(
            scorer,
            gallery,
            settings,
            BatchLimits(),
            ServerOptions(port=0),
            keys=None,
            started=_say,
        )


def _say(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
