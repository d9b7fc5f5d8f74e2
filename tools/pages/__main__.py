"""Build the site into build/site: `make docs`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tools.pages.check import problems
from tools.pages.stage import stage

ROOT = Path(__file__).parents[2]
SOURCE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"


def main() -> int:
    """Build everything anew; the exit code is 1 where a link or an asset is wrong."""
    for folder in (SOURCE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    stage(ROOT, SOURCE)
    zensical = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(zensical, cwd=ROOT, check=False)
    if done.returncode != 0:
        return done.returncode
    found = problems(SITE)
    print(*found, f"{len(list(SITE.rglob('*.html')))} pages in {SITE}", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
