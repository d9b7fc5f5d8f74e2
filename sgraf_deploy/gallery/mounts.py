"""Which file system a folder is on: LMDB's locks and maps do not work across a network."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sgraf_deploy.errors import DataError

MOUNTS = Path("/proc/self/mountinfo")
"""Linux's list of mounted file systems."""

NETWORK = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.gcsfuse"),
        *("fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
        *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "smb3", "smbfs"),
    }
)
_OCTAL = re.compile(r"\\([0-7]{3})")


def check_local(folder: Path) -> None:
    """Raise DataError for a folder on a network file system, as far as the system tells."""
    found = file_system(folder)
    if found is not None and found[1] in NETWORK:
        raise DataError(
            f"gallery {folder}",
            expected="a local file system",
            got=f"{found[1]}, mounted at {found[0]}",
            hint="copy the gallery to a disk of this machine: it is read through a memory map, and "
            "its locks do not reach other machines",
        )


def file_system(folder: Path) -> tuple[str, str] | None:
    """The mount point that holds a folder, and its type; None where the system does not tell."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    path = os.path.realpath(folder)
    best: tuple[str, str] | None = None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        parts, kinds = fields.split(" "), rest.split(" ")
        if len(parts) < 5 or not kinds[0]:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), parts[4])
        inside = path == point or path.startswith(f"{point.rstrip('/')}/")
        if inside and (best is None or len(point) >= len(best[0])):
            best = point, kinds[0]
    return best
