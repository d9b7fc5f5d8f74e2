"""Read a file that `torch.save` wrote without running any code that it refers to.

The file is unpickled by torch's `weights_only` loader with an allow-list for the content of the
authors' checkpoints: tensors, plain containers, `argparse.Namespace` and numpy's scalars. Scalars
are rebuilt here, without numpy's own code. Classes of the training code, paths and dates are
replaced by a stand-in that does nothing; a file that names something that could run code is
refused as a whole.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import pickletools
import re
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from sgraf_deploy.errors import CheckpointError, UnavailableError
from sgraf_deploy.formats import scan_pickles
from sgraf_deploy.model.container import (
    check_container,
    damaged,
    main_pickle,
    not_a_file,
    quoted,
    refused,
)
from sgraf_deploy.model.foreign import (
    Foreign,
    foreign_names,
    kind_in,
    printable,
    refused_names,
    stand_in,
)

CLEAN = "clean.pth.tar"
"""The name of the file that `clean_copy` suggests."""

OLDEST_TORCH = "2.10"
"""In older versions `weights_only` itself can be made to corrupt memory (CVE-2026-24747)."""

_NAMED = re.compile(r"\bGLOBAL (\S+) (?:was not|whose module)")
_NUMBER = re.compile("f[248]|[iu][1248]|b1")
_TEXT_OR_TIME = re.compile(r"[USmM]\d*")
_LISTED = 3
_OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}

# torch has a single allow-list per process: a thread that ends its use would end another's, too.
_LOCK = threading.Lock()


def load_untrusted(path: Path) -> tuple[Any, str]:
    """The object that `torch.save` wrote to `path`, tensors on the CPU, and the file's sha256.

    Instances of classes that are not on the allow-list are of type `Foreign`. Raises
    CheckpointError, without the path, if the file is anything else, is damaged, or names something
    that could run code; UnavailableError, before the file is opened, if there is no PyTorch that
    can read it safely.
    """
    torch = torch_that_reads()
    try:
        if not path.exists():
            raise CheckpointError("no such file")
        if not path.is_file():
            raise not_a_file(path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            check_container(file, path)
            return _load(torch, file, path), sha256
    except OSError as error:
        raise CheckpointError("cannot be read", got=error.strerror or error) from error


def clean_copy(path: Path, saved: str) -> str:
    """A hint with Python that reads the trusted file `path` as `c` and saves `saved` of it."""
    lines = (
        "import torch",
        f"c = torch.load({quoted(path)}, map_location='cpu', weights_only=False)",
        f"torch.save({saved}, {CLEAN!r})",
    )
    return (
        "if you trust its source (reading it this way can run any code), save a clean copy with "
        f"Python where the training code is installed: {'; '.join(lines)}"
    )


def import_torch() -> ModuleType:
    """The torch module; raises UnavailableError, with the command that installs it, without it."""
    try:
        import torch
    except ImportError as error:
        raise UnavailableError(
            "the authors' checkpoints need PyTorch", hint="pip install 'sgraf-deploy[torch]'"
        ) from error
    return torch


def torch_that_reads() -> ModuleType:
    """The torch module, like `import_torch`, if it can read checkpoints safely.

    A version older than `OLDEST_TORCH` is refused, and so is a pre-release of that version.
    """
    torch = import_torch()
    if torch.torch_version.TorchVersion(torch.__version__) < OLDEST_TORCH:
        raise UnavailableError(
            "checkpoints, which are untrusted, need a newer PyTorch",
            expected=f"version {OLDEST_TORCH} or later, where CVE-2026-24747 is fixed",
            got=torch.__version__,
            hint=f"pip install 'torch>={OLDEST_TORCH}'",
        )
    return torch


def _load(torch: ModuleType, file: IO[bytes], path: Path) -> Any:
    names = scan_pickles(main_pickle(file)).names
    for name in refused_names(names):
        raise refused(name)
    allowed: list[Any] = [
        (argparse.Namespace, "argparse.Namespace"),
        (argparse.Namespace, "types.SimpleNamespace"),
        (_plain_dict, "collections.defaultdict"),
        (_plain_list, "collections.deque"),
        (_NumpyType, "numpy.dtype"),
        (_numpy_scalar, "numpy.core.multiarray.scalar"),
        (_numpy_scalar, "numpy._core.multiarray.scalar"),
        *((stand_in(name), name) for name in foreign_names(names)),
    ]

    def load(**options: str) -> Any:
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True, **options)

    try:
        with _LOCK, warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            # It warns of other pickle protocols, and of `encoding`, although it does use that.
            warnings.simplefilter("ignore")
            try:
                return load()
            except UnicodeDecodeError:
                # Python 2 wrote the bytes of a number as a string.
                return load(encoding="latin1")
    except MemoryError as error:
        raise CheckpointError("it does not fit into memory") from error
    except Exception as error:
        # A hostile or damaged pickle makes the unpickler raise anything.
        raise _translated(error, file, path) from error


def _translated(error: Exception, file: IO[bytes], path: Path) -> CheckpointError:
    text = str(error)
    if named := _NAMED.search(text):
        # A name at the very end is truncated: every pickle continues after its names.
        complete = bool(file.read(1))
        return refused(named[1]) if complete else damaged("it ends within its pickle")
    if isinstance(error, pickle.UnpicklingError):
        reason = text.rsplit("WeightsUnpickler error:", maxsplit=1)[-1].strip().split("\n")[0]
        hint = "save it again with a current PyTorch and its default pickle protocol"
        if kind := kind_in(text):
            reason = f"an instance of {kind}"
            hint = clean_copy(path, saved_of("[dict(part) for part in c['model']]"))
        elif "Only persistent_load of storage" in text:
            # PyTorch before 1.6 stored the source code of a module's class with it.
            kinds = foreign_names(scan_pickles(main_pickle(file)).names)
            reason = f"a whole module of {', '.join(kinds[:_LISTED])}"
            hint = clean_copy(path, "c")
        elif operand := re.search(r"Unsupported operand (\d+)", text):
            reason = f"opcode {_OPCODES.get(int(operand[1]), operand[1])}"
            hint = clean_copy(path, "c")
        return CheckpointError(
            "its pickle cannot be read safely",
            expected="tensors and plain values as torch.save writes them by default",
            got=printable(reason),
            hint=hint,
        )
    return damaged(f"{type(error).__name__} {text.split('. ', maxsplit=1)[0]}".strip())


def saved_of(model: str) -> str:
    """Python for a checkpoint of `model` and the plain options of `c['opt']`."""
    items = "(o if hasattr(o, 'items') else vars(o)).items()"
    plain = f"{{k: v for k, v in {items} if isinstance(v, (bool, int, float, str))}}"
    return f"{{'model': {model}, 'opt': [{plain} for o in [c.get('opt') or {{}}]][0]}}"


def _plain_dict(*_: object) -> dict[Any, Any]:
    """Stands in for `collections.defaultdict`."""
    return {}


def _plain_list(*_: object) -> list[Any]:
    """Stands in for `collections.deque`."""
    return []


class _NumpyType:
    """Stands in for `numpy.dtype` in a pickle, with only what a number needs."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code if isinstance(code, str) else ""
        self.dtype = np.dtype(self.code) if _NUMBER.fullmatch(self.code) else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.dtype is not None and state[1] in {"<", ">"}:
            self.dtype = self.dtype.newbyteorder(state[1])


def _numpy_scalar(kind: object, data: object) -> bool | int | float | Foreign:
    """Stands in for numpy's function that rebuilds a pickled scalar."""
    if not isinstance(kind, _NumpyType):
        raise pickle.UnpicklingError("a numpy scalar without a dtype")
    if _TEXT_OR_TIME.fullmatch(kind.code):
        return stand_in(f"numpy scalar of type {kind.code}")()
    if kind.dtype is None:
        raise pickle.UnpicklingError(f"numpy dtype {kind.code!r} is not a plain number")
    size = kind.dtype.itemsize
    if isinstance(data, str):
        # Python 2's bytes, decoded with the encoding that the current load uses.
        data = data.encode("latin1" if len(data) == size else "utf-8")
    if not isinstance(data, bytes) or len(data) != size:
        raise pickle.UnpicklingError("a numpy scalar without its bytes")
    value: bool | int | float = np.frombuffer(data, kind.dtype)[0].item()
    return value
