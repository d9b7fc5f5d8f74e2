"""What `--engine auto` takes on the machine that the tests run on."""

from __future__ import annotations

from sgraf_deploy.config import Precision
from sgraf_deploy.engines.machine import Machine
from sgraf_deploy.engines.policy import Request, choose


def auto_engine(precision: Precision | None = None) -> str:
    """For a bundle with every precision and no compiled engines."""
    return choose(Request(precision=precision), Machine()).engine
