"""Check that a file is complete and written by `torch.save`, and describe it if it is not."""

from __future__ import annotations

import io
import shlex
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from sgraf_deploy import formats
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.foreign import foreign_names, printable, refused_names

LEGACY_HEAD = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""torch's magic number, pickled with protocol 2: the beginning of files before torch 1.6."""

ZIP_HEAD = b"PK\x03\x04"

_EMPTY_ZIP = b"PK\x05\x06"
_ENCRYPTED = 1
_SAVE = "a file written by torch.save, as in the authors' train.py"
_AGAIN = "copy or download it again"
_INSIDE = (".pth", ".pt", ".tar", ".pth.tar", ".ckpt", ".bin", ".pkl")
_LISTED = 5


def check_container(file: IO[bytes], path: Path) -> None:
    """Raise CheckpointError, without the path, unless torch.save may have written the open file."""
    file.seek(0)
    head = file.read(formats.HEAD)
    file.seek(0)
    if not head:
        raise CheckpointError("the file is empty", expected=_SAVE, got="0 bytes", hint=_AGAIN)
    if head.startswith((ZIP_HEAD, _EMPTY_ZIP)):
        _check_zip(file, path)
    elif head.startswith(LEGACY_HEAD):
        return
    elif LEGACY_HEAD.startswith(head):
        raise damaged("it ends within its first bytes")
    else:
        raise _something_else(file, head, path)


def not_a_file(path: Path) -> CheckpointError:
    """The error for a folder, or anything else at `path` that is not a file."""
    if not path.is_dir():
        return CheckpointError("not a file", expected=_SAVE)
    if (path / "manifest.json").is_file():
        hint = "a bundle is already exported: give it to eval, bench or rerank"
        return CheckpointError("not a file", expected=_SAVE, got="a bundle", hint=hint)
    for root in (path, *sorted(path.iterdir())[:_LISTED]):
        if _is_unpacked(root):
            return _unpacked(root, "not a file", "a folder with an unpacked checkpoint")
    candidates = sorted(entry.name for entry in path.iterdir() if entry.name.endswith(_INSIDE))
    named = ", ".join(map(printable, candidates[:_LISTED]))
    hint = f"give the file inside the folder{': ' if named else ''}{named}"
    return CheckpointError("not a file", expected=_SAVE, got="a folder", hint=hint)


def refused(name: str) -> CheckpointError:
    """The error for a file whose pickle names something that could run code."""
    return CheckpointError(
        "refused",
        expected="tensors and plain values",
        got=f"{printable(name)} in its pickle",
        hint="a checkpoint is untrusted input, so a file whose unpickling could run code is "
        "refused; ask whoever trained it for one with only tensors, plain values and "
        "argparse.Namespace",
    )


def damaged(reason: str) -> CheckpointError:
    """The error for a file by torch.save that is truncated or was changed since."""
    return CheckpointError(
        "truncated or damaged", expected="a complete file", got=printable(reason), hint=_AGAIN
    )


def quoted(path: Path) -> str:
    """A path as a Python literal for a message, where repeated spaces would become a single one."""
    return repr(str(path)).replace("  ", r"\x20\x20")


def main_pickle(file: IO[bytes]) -> IO[bytes]:
    """The main pickle of a file, as a stream at its beginning."""
    file.seek(0)
    if file.read(len(ZIP_HEAD)) != ZIP_HEAD:
        file.seek(0)
        return file
    with zipfile.ZipFile(file) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return io.BytesIO(archive.read(name))


def _check_zip(file: IO[bytes], path: Path) -> None:
    """Refuse archives that are damaged or not by torch.save: torch does not check the checksums."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            names = [member.filename for member in members]
            packed = any(member.compress_type for member in members)
            if any(member.flag_bits & _ENCRYPTED for member in members):
                hint = "unpack it with its password and give the file in it"
                raise _foreign("a zip archive with a password", hint)
            if other := _other_zip(names, path, packed=packed):
                raise other
            broken = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:
        # A damaged archive makes zipfile raise almost anything.
        raise damaged(str(error)) from error
    if broken is not None:
        raise damaged(f"{broken} does not match its checksum")


def _other_zip(names: Sequence[str], path: Path, *, packed: bool) -> CheckpointError | None:
    """The error for an archive of these files unless torch.save makes such a one."""
    # torch.save puts everything into one folder; what macOS adds on zipping is beside it.
    within = {name.partition("/")[2] for name in names if not name.startswith("__MACOSX/")}
    if "constants.pkl" in within:
        hint = "use the checkpoint that it was scripted from"
        return _foreign("a TorchScript archive", hint)
    if "data.pkl" in within and not packed:
        return None
    file = shlex.quote(path.name)
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        again = f"unzip {file} -d FOLDER, then, next to the folder NAME that has data.pkl,"
        return _foreign(
            "a checkpoint that was unpacked and zipped again in a way that torch cannot read",
            f"give the file that it was unpacked from; if that is lost: {again} "
            "zip -0 -r again.pth.tar NAME",
        )
    if names and all(name.endswith(".npy") for name in names):
        return _foreign("NumPy arrays (.npz)")
    if inside := [name for name in names if name.endswith(_INSIDE)]:
        hint = f"unzip {file} -d FOLDER and give the file in it"
        return _foreign(f"a zip archive with {_listed(inside)}", hint)
    return _foreign(f"another zip archive, with {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(map(printable, names[:_LISTED])) or "nothing") + more


def _something_else(file: IO[bytes], head: bytes, path: Path) -> CheckpointError:
    """The error for a file that is neither of torch's two formats."""
    if path.name != "data.pkl":
        for root in path.resolve().parents[:2]:
            if _is_unpacked(root):
                return _unpacked(root, "not a checkpoint", "a part of an unpacked checkpoint")
    pickles = formats.scan_pickles(file)
    for name in refused_names(pickles.names):
        return refused(name)
    if pickles.found:
        return _other_pickle(pickles, path)
    known = formats.recognise(head)
    if known is None:
        return _foreign(f"a file that begins with {formats.shown(head)}")
    return _foreign(known.name, known.hint)


def _other_pickle(pickles: formats.Pickles, path: Path) -> CheckpointError:
    if pickles.pieces:
        got = "the data.pkl of a checkpoint"
        return _unpacked(path.resolve().parent, "not a checkpoint", got)
    what = next(iter(foreign_names(pickles.names)), "plain values")
    lines = (
        "import pathlib, pickle, torch",
        f"c = pickle.loads(pathlib.Path({quoted(path)}).read_bytes())",
        "torch.save(c, 'clean.pth.tar')",
    )
    return _foreign(
        f"a pickle of {printable(what)} that torch.save did not write",
        "if it is a checkpoint and you trust its source (reading it can run any code), save it "
        f"again with Python: {'; '.join(lines)}",
    )


def _is_unpacked(folder: Path) -> bool:
    return (folder / "data.pkl").is_file() and (folder / "data").is_dir()


def _unpacked(root: Path, what: str, got: str) -> CheckpointError:
    """The error for the folder of an unpacked checkpoint, or for a file in it."""
    place, name = root.parent, root.name
    return CheckpointError(
        what,
        expected=_SAVE,
        got=got,
        hint="give the checkpoint file itself; if only the folder is left, pack it again: "
        f"cd {shlex.quote(str(place))} && zip -0 -r again.pth.tar {shlex.quote(name)}",
    )


def _foreign(got: str, hint: str | None = None) -> CheckpointError:
    return CheckpointError("not a checkpoint", expected=_SAVE, got=got, hint=hint)
