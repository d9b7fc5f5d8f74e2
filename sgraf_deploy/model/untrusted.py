"""Read a file that `torch.save` wrote without running anything that it asks for.

The unpickling is torch's `weights_only` one with an allow-list of what the authors' checkpoints
hold: tensors, plain containers, `argparse.Namespace` and numpy's scalars. The latter are rebuilt
here: numpy's own code never sees the file.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import pickletools
import re
import threading
import warnings
import zipfile
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from sgraf_deploy.errors import CheckpointError, UnavailableError

LEGACY_HEAD = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""torch's magic number as protocol 2 pickles it: how files before torch 1.6 begin."""

OLDEST_TORCH = "2.10"
"""Before it, `weights_only` itself can be made to corrupt memory (CVE-2026-24747)."""

_ZIP_HEAD = b"PK\x03\x04"
_SAVE = "a file by torch.save, as the authors' train.py writes it"
_REFUSED = (
    "a checkpoint is untrusted input, and code that unpickling could run is refused; save it again "
    "with tensors, plain values and argparse.Namespace only"
)
_AGAIN = "copy or download it again"
_NAMED = re.compile(r"\bGLOBAL (\S+) (?:was not|whose module)")
_NUMBER = re.compile("f[248]|[iu][1248]|b1")
_ALLOWED = re.compile(
    r"(torch|torch\._utils|torch\.storage)\.\w+|collections\.OrderedDict|argparse\.Namespace"
    r"|numpy\.dtype|numpy\._?core\.multiarray\.scalar|_codecs\.encode"
)
_OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}

# torch's allow-list is one per process: what one thread ends, another would miss.
_LOCK = threading.Lock()


def load_untrusted(path: Path) -> tuple[Any, str]:
    """The object that `torch.save` wrote to `path`, tensors on the CPU, and the file's sha256.

    Raises CheckpointError, without the path, if the file is anything else, is damaged, or needs
    a class or function that is not on the allow-list; UnavailableError, before the file is opened,
    without a PyTorch that is safe to read it with.
    """
    torch = torch_that_reads()
    try:
        if not path.exists():
            raise CheckpointError("no such file")
        if not path.is_file():
            mend = "name the file inside the folder"
            raise CheckpointError("not a file", expected=_SAVE, mend=mend)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            _check_format(file)
            return _load(torch, file), sha256
    except OSError as error:
        raise CheckpointError("cannot be read", got=error.strerror or error) from error


def import_torch() -> ModuleType:
    """The torch module; UnavailableError, with the command that installs it, without it."""
    try:
        import torch
    except ImportError as error:
        raise UnavailableError(
            "the authors' checkpoints need PyTorch", mend="pip install 'sgraf-deploy[torch]'"
        ) from error
    return torch


def torch_that_reads() -> ModuleType:
    """The torch module, as `import_torch`, if it is safe to read checkpoints with.

    An older one than `OLDEST_TORCH` counts as none, and so does a pre-release of that version.
    """
    torch = import_torch()
    if torch.torch_version.TorchVersion(torch.__version__) < OLDEST_TORCH:
        raise UnavailableError(
            "PyTorch for checkpoints, which are untrusted",
            expected=f"version {OLDEST_TORCH} or later: CVE-2026-24747 is mended there",
            got=torch.__version__,
            mend=f"pip install 'torch>={OLDEST_TORCH}'",
        )
    return torch


def _check_format(file: IO[bytes]) -> None:
    file.seek(0)
    head = file.read(len(LEGACY_HEAD))
    file.seek(0)
    if not head:
        raise CheckpointError("the file is empty", expected=_SAVE, mend=_AGAIN)
    if head.startswith(_ZIP_HEAD):
        _check_zip(file)
    elif LEGACY_HEAD.startswith(head):
        # A whole head goes on to torch; of a shorter file it is all that is left.
        if len(head) < len(LEGACY_HEAD):
            raise _damaged("it ends within its first bytes")
    elif head[8:9] == b"{":
        raise CheckpointError("not a checkpoint", expected=_SAVE, got="a safetensors file")
    else:
        names = _pickled_names(file)
        if names:
            raise _refused(names[0])
        raise CheckpointError(
            "not a checkpoint", expected=_SAVE, got=f"a file that begins {head!r}"
        )


def _check_zip(file: IO[bytes]) -> None:
    """Refuse archives that torch.save did not write whole: torch checks no checksum itself."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = {member.filename.partition("/")[2] for member in members}
            if "constants.pkl" in names:
                raise CheckpointError(
                    "not a checkpoint",
                    expected=_SAVE,
                    got="a TorchScript archive",
                    mend="use the checkpoint that it was scripted from",
                )
            if "data.pkl" not in names or any(member.compress_type for member in members):
                raise CheckpointError("not a checkpoint", expected=_SAVE, got="another zip archive")
            broken = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:
        # A damaged archive makes zipfile raise almost anything.
        raise _damaged(str(error)) from error
    if broken is not None:
        raise _damaged(f"{broken} does not match its checksum")


def _load(torch: ModuleType, file: IO[bytes]) -> Any:
    allowed: list[Any] = [
        (argparse.Namespace, "argparse.Namespace"),
        (_NumpyType, "numpy.dtype"),
        (_numpy_scalar, "numpy.core.multiarray.scalar"),
        (_numpy_scalar, "numpy._core.multiarray.scalar"),
    ]

    def load(**options: str) -> Any:
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True, **options)

    try:
        with _LOCK, warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            # Of another pickle protocol, and of `encoding`, which the safe loader does heed.
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
        raise _translated(error, file) from error


def _translated(error: Exception, file: IO[bytes]) -> CheckpointError:
    text = str(error)
    if named := _NAMED.search(text):
        # A name at the very end is a cut-off one: every pickle goes on after its names.
        whole = bool(file.read(1))
        return _refused(named[1]) if whole else _damaged("it ends within its pickle")
    if isinstance(error, pickle.UnpicklingError):
        names = _pickled_names(_main_pickle(file))
        if names:
            return _refused(names[0])
        reason = text.rsplit("WeightsUnpickler error:", maxsplit=1)[-1].strip().split("\n")[0]
        if operand := re.search(r"Unsupported operand (\d+)", text):
            reason = f"opcode {_OPCODES.get(int(operand[1]), operand[1])}"
        return CheckpointError(
            "its pickle cannot be read safely",
            expected="what torch.save writes by default",
            got=_printable(reason),
            mend="save it again with a current PyTorch and its default pickle protocol",
        )
    return _damaged(f"{type(error).__name__} {text.split('. ', maxsplit=1)[0]}".strip())


def _refused(name: str) -> CheckpointError:
    return CheckpointError(
        "refused",
        expected="tensors and plain values",
        got=f"{_printable(name)} in its pickle",
        mend=_REFUSED,
    )


def _printable(text: str) -> str:
    """Text of the file's own choice, fit for a terminal."""
    return text.encode("unicode_escape").decode("ascii")


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(
        "truncated or damaged", expected="a whole file", got=_printable(reason), mend=_AGAIN
    )


def _main_pickle(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    if file.read(len(_ZIP_HEAD)) != _ZIP_HEAD:
        file.seek(0)
        return file
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return io.BytesIO(archive.read(name))


def _pickled_names(stream: IO[bytes]) -> list[str]:
    """Classes and functions that pickles name and the allow-list does not; nothing is run."""
    found: list[str] = []
    start = stream.tell()
    try:
        # The older format is several pickles in a row, then raw bytes that are none.
        while stream.read(1):
            stream.seek(start)
            names: list[str] = []
            strings: list[str] = []
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in {"GLOBAL", "INST"}:
                    names.append(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.append(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
            found += names
            start = stream.tell()
    except Exception:  # noqa: BLE001 - what follows is no pickle; whole ones before it count
        pass
    return [name for name in found if not _ALLOWED.fullmatch(name)]


class _NumpyType:
    """Stands in for `numpy.dtype` in a pickle: only what a number needs."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise pickle.UnpicklingError(f"numpy dtype {code!r} is no plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in {"<", ">"}:
            self.dtype = self.dtype.newbyteorder(state[1])


def _numpy_scalar(kind: object, data: object) -> bool | int | float:
    """Stands in for numpy's function that rebuilds a pickled scalar."""
    if not isinstance(kind, _NumpyType):
        raise pickle.UnpicklingError("a numpy scalar without a dtype")
    size = kind.dtype.itemsize
    if isinstance(data, str):
        # Python 2's bytes, decoded as whichever encoding the load in progress uses.
        data = data.encode("latin1" if len(data) == size else "utf-8")
    if not isinstance(data, bytes) or len(data) != size:
        raise pickle.UnpicklingError("a numpy scalar without its bytes")
    value: bool | int | float = np.frombuffer(data, kind.dtype)[0].item()
    return value
