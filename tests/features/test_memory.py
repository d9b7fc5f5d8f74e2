"""A long run takes no more memory than a short one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.photographs import PHOTOGRAPHS, photograph, picture_file

RUN = """
import resource, sys
from sgraf_deploy.features.decode import decode_photo
from sgraf_deploy.features.spec import open_extractor

extractor = open_extractor(sys.argv[1])
for done in range(1, 201):
    path = sys.argv[2:][done % len(sys.argv[2:])]
    features = extractor.extract([decode_photo(path)])
    if done in (30, 200):
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit is kilobytes on Linux")
def test_memory_is_flat_over_200_photographs(lite2_file: Path, tmp_path: Path) -> None:
    """Of 0.1 to 1.5 million pixels, of each of which the first 30 hold some."""
    paths = [photograph(name) for name in PHOTOGRAPHS]
    large = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (4, 1500, 3))
    for kind, options in (("JPEG", {}), ("PNG", {}), ("WEBP", {"method": 0})):
        paths.append(tmp_path / f"large.{kind}")
        paths[-1].write_bytes(picture_file(large, kind, **options))
    spec = f"grid:{lite2_file},mean=127,scale=128"
    command = [sys.executable, "-c", RUN, spec, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after_30, after_200 = map(int, done.stdout.split())
    assert after_200 - after_30 < 50_000
    assert after_30 > 50_000  # Python and the model alone
