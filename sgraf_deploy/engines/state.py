"""What this user has found out on this machine, which no bundle can bring along.

    STATE/verified/HASH.json      a plan was compared with the reference here: its `Mark`
    STATE/onnxruntime/BUNDLE/     plans that ONNX Runtime's TensorRT provider built
    STATE/timing/…                what TensorRT measured while it built
    STATE/kernels/HASH.cache      what TensorRT for RTX compiled of a plan for a GPU

STATE is `SGRAF_DEPLOY_STATE` or, where that is not set, `sgraf-deploy` in the folder that the
system has for a user's state. Who can write there can have plans run: it belongs to one user.
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

NAME_A_FOLDER = f"name a folder that can be written in {VARIABLE}"


@dataclass(frozen=True)
class Mark:
    """A plan's values were compared, within every bound, with the reference's on a GPU.

    It holds for the same plan, graph, values of the reference, TensorRT and kind of GPU alone.
    """

    plan_sha256: str
    onnx_sha256: str
    reference_sha256: str
    """Of the bundle's `reference/gate.npz`."""
    flavour: str
    version: str
    device: str
    compute_capability: str

    def to_bytes(self) -> bytes:
        """The mark's file."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"

    def path(self, state: Path) -> Path:
        """The mark's place in the state folder."""
        return state / "verified" / f"{hashlib.sha256(self.to_bytes()).hexdigest()}.json"


def state_folder() -> Path | None:
    """This user's state, whether it exists or not; None where the system names no such folder.

    Raises InputError if `SGRAF_DEPLOY_STATE` is not an absolute path: a relative one would be
    another folder, perhaps a downloaded one, wherever the program is started.
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
    except RuntimeError:  # A user without a home, as containers have them.
        return None


def is_verified(mark: Mark) -> bool:
    """Whether this user has the mark; not where the state cannot be read."""
    state = state_folder()
    try:
        return state is not None and mark.path(state).read_bytes() == mark.to_bytes()
    except OSError:
        return False


def mark_verified(mark: Mark) -> None:
    """Keep a mark; BundleError where that cannot be done."""
    state = state_folder()
    if state is None:
        raise BundleError("this user has no folder for state", hint=NAME_A_FOLDER)
    keep(mark.path(state), mark.to_bytes())


def keep(path: Path, content: bytes) -> None:
    """Write a file of the state, whole or not at all; BundleError where that cannot be done."""
    with os_errors(f"{path}", BundleError, NAME_A_FOLDER):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, content, what="state", error=BundleError, hint=NAME_A_FOLDER)
