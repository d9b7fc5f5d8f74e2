"""Galleries on network file systems are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from gallery.conftest import Make
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery import Gallery, mounts
from sgraf_deploy.runtime import Scorer

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / {point} rw - {kind} server:/export rw
31 22 0:41 / /other rw - nfs server:/other rw
"""


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "lustre", "ceph"]
)
def test_network_file_systems_are_refused(
    make: Make, fake: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    point = tmp_path / "far away"
    point.mkdir()
    mounted = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "MOUNTS", mounted)
    gallery = make("far away/some.gallery")
    escaped = str(point).replace(" ", "\\040")
    mounted.write_text(MOUNTS.format(point=escaped, kind=kind))
    with refused(DataError, gallery.path, got=naming(kind, point), hint=naming()):
        Gallery.open(gallery.path)
    with refused(DataError, got=naming(kind)):
        Gallery.create(point / "new", fake)
    assert len(make("near.gallery")) == 0
    mounted.write_text(MOUNTS.format(point=escaped, kind="xfs"))
    assert len(Gallery.open(gallery.path)) == 0
