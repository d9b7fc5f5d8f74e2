"""What this user found out on this machine, and no bundle can bring along.

    STATE/verified/HASH.json      a plan was compared with the reference here: its `Mark`
    STATE/onnxruntime/BUNDLE/     plans that ONNX Runtime's TensorRT provider built
    STATE/timing/…                what TensorRT measured while it built
    STATE/kernels/HASH.cache      the kernels that TensorRT for RTX compiled for a plan and a GPU

STATE is `SGRAF_DEPLOY_STATE` or, where that is not set, `sgraf-deploy` in the system's folder for
the user's state. It belongs to one user: whoever can write there can have plans run.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from sgraf_deploy.errors import BundleError, InputError
from sgraf_deploy.files.disk import os_errors
from sgraf_deploy.files.writer import write_file

VARIABLE = "SGRAF_DEPLOY_STATE"

NAME_A_FOLDER = f"set {VARIABLE} to a folder that can be written"


@dataclass(frozen=True)
class Mark:
    """Says that a plan's values were within every bound of the reference's on a GPU.

    It is valid only for the same plan, graph, reference values, TensorRT and kind of GPU.
    """

    plan_sha256: str
    onnx_sha256: str
    reference_sha256: str
    """The hash of the bundle's `reference/gate.npz`; empty without one."""
    flavour: str
    version: str
    device: str
    compute_capability: str

    def to_bytes(self) -> bytes:
        """The content of the mark's file."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"

    def path(self, state: Path) -> Path:
        """The mark's place in the state folder."""
        return state / "verified" / f"{hashlib.sha256(self.to_bytes()).hexdigest()}.json"


def state_folder() -> Path | None:
    """This user's state folder, which need not exist; None where the system names none.

    Raises InputError if `SGRAF_DEPLOY_STATE` is not an absolute path: a relative one would depend
    on where the program is started, and might name a downloaded folder.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not os.path.isabs(named):
            raise InputError(VARIABLE, expected="an absolute path", got=named)
        return Path(named)
    variable, below = "XDG_STATE_HOME", ".local/state"
    if sys.platform == "win32":
        variable, below = "LOCALAPPDATA", "AppData/Local"
    folder = os.environ.get(variable, "")
    if os.path.isabs(folder):
        return Path(folder) / "sgraf-deploy"
    try:
        return Path.home() / below / "sgraf-deploy"
    except RuntimeError:  # A user without a home, as in some containers.
        return None


def is_verified(mark: Mark) -> bool:
    """Whether this user has the mark; False where the state cannot be read."""
    state = state_folder()
    try:
        return state is not None and mark.path(state).read_bytes() == mark.to_bytes()
    except OSError:
        return False


def mark_verified(mark: Mark) -> None:
    """Keep a mark in the state folder; BundleError where that fails."""
    state = state_folder()
    if state is None:
        raise BundleError("this user has no state folder", hint=NAME_A_FOLDER)
    keep(mark.path(state), mark.to_bytes())


def keep(path: Path, content: bytes) -> None:
    """Write a file of the state folder, whole or not at all; BundleError where that fails."""
    with os_errors(f"{path}", BundleError, NAME_A_FOLDER):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, content, what="state", error=BundleError, hint=NAME_A_FOLDER)
