"""Write a bundle with random weights at the paper's dimensions, made from a seed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.bench.random_model import export_random, model_config, random_checkpoint
from sgraf_deploy.config import MODULES

SMALL = {"embed": 64, "sim_dim": 32, "word_dim": 24, "img_dim": 64}
"""The dimensions of a trial."""


def _job(given: argparse.Namespace) -> None:
    given.folder.mkdir(parents=True, exist_ok=True)
    config = model_config(given.module, **(SMALL if given.small else {}))
    export_random(random_checkpoint(config), given.folder, ("fp32", "fp16"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", choices=MODULES)
    parser.add_argument("folder", type=Path, help="folder for the bundle and its checkpoint")
    parser.add_argument("--small", action="store_true", help="use small dimensions, for a trial")
    return parser


if __name__ == "__main__":
    sys.exit(run_job(_parser(), _job))
