"""The package on a system like Windows, played in a process of its own: `other_system.py BUNDLE`.

What POSIX alone has cannot be imported, or is not in `os`; no folder can be opened, no open file
renamed, and there is no `renameat2`. Libraries are imported before: they know their systems.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import signal
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix"}
FUNCTIONS = (
    *("O_NOFOLLOW", "O_CLOEXEC", "O_DIRECTORY", "O_NONBLOCK", "O_SYNC", "O_DSYNC"),
    *("pread", "pwrite", "fchmod", "fchown", "chown", "fdatasync", "sync", "statvfs", "fstatvfs"),
    *("fork", "register_at_fork", "wait", "waitid", "WNOHANG", "killpg", "setsid", "nice"),
    *("getuid", "geteuid", "getgid", "getegid", "getpgid", "getgroups", "uname", "getloadavg"),
    *("sched_getaffinity", "sched_yield", "sysconf", "mkfifo", "mknod", "posix_fallocate"),
)
SIGNALS = ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "SIGXFSZ", "SIGPIPE")
LIBRARIES = ("click", "nltk", "numpy", "onnx", "onnxruntime", "safetensors.numpy", "tabulate")


class NoPosix:
    """Finds no module that POSIX alone has."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


class WindowsLibraries(ctypes.CDLL):
    """No library without a name."""

    def __init__(self, name: str | None, *arguments: Any, **options: Any) -> None:
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        super().__init__(name, *arguments, **options)


def leave_posix() -> None:
    for library in (*LIBRARIES, "torch"):
        with suppress(ImportError):
            importlib.import_module(library)
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, NoPosix())
    for owner, names in ((os, FUNCTIONS), (signal, SIGNALS)):
        for name in names:
            if hasattr(owner, name):
                delattr(owner, name)
    ctypes.CDLL = WindowsLibraries  # type: ignore[misc]
    shutil._use_fd_functions = False  # type: ignore[attr-defined]  # as shutil knows Windows
    refuse_as_windows()


def refuse_as_windows() -> None:
    """Folders are not opened, open files not replaced, and a rename replaces nothing."""
    real_open, real_replace, real_rename = os.open, os.replace, os.rename

    def open_no_folder(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, flags, *arguments, **options)

    def replace_closed(source: Path, target: Path) -> None:
        if is_open(source):
            raise PermissionError(32, "in use by another process", str(source))
        real_replace(source, target)

    def rename_to_new(source: Path, target: Path) -> None:
        if os.path.lexists(target):
            raise FileExistsError(17, "exists already", str(target))
        real_rename(source, target)

    for function in (open_no_folder, replace_closed, rename_to_new):
        setattr(os, function.__name__.partition("_")[0], function)


def is_open(path: Path) -> bool:
    """Whether this process has a descriptor of a file."""
    for descriptor in range(3, 256):
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return True
    return False


def publish(folder: Path, bundle: Path) -> None:
    """Files and bundles appear there, too, and take the place of older ones."""
    from sgraf_deploy.bundle.bundle import Bundle, staged_bundle
    from sgraf_deploy.files.writer import staged_file, write_json

    for number in range(2):
        write_json(folder / "report.json", {"number": number})
        with staged_file(folder / "checkpoint") as file:
            file.write(f"{number}".encode())
        with staged_bundle(folder / "copy.sgraf", force=True) as staged:
            shutil.copytree(bundle, staged, dirs_exist_ok=True)
    assert (folder / "checkpoint").read_bytes() == b"1"
    assert Bundle.open(folder / "copy.sgraf").verify_files() == ()
    assert sorted(path.name for path in folder.iterdir()) == [
        *("checkpoint", "copy.sgraf", "report.json")
    ]


def main(bundle: Path, folder: Path) -> None:
    leave_posix()
    import sgraf_deploy

    with sgraf_deploy.load(bundle, engine="ort") as scorer:
        config = next(iter(scorer.bundle.manifest.members.values())).config
        import numpy as np

        regions = np.ones((2, config.regions, config.img_dim), np.float32)
        assert scorer.score(regions, [[1, 4, 5, 2]]).shape == (2, 1)
    from sgraf_deploy.cli import main as command

    for arguments in (["doctor"], ["inspect", str(bundle)], ["bench", "--help"]):
        command(arguments, standalone_mode=False)
    publish(folder, bundle)
    assert not MODULES & set(sys.modules)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
