"""Run engine native's tests on a debug library that AddressSanitizer and UBSan watch.

`make sanitize` calls it. In a copy of the checkout: the library that is installed stays what it
is. Every instruction set of the machine is tested, as always. Needs GCC. Arguments go to pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sgraf_deploy.engines.native.build import DEBUG, LIBRARY, compile_library, find_compiler

ROOT = Path(__file__).parents[1]
COPIED = ("sgraf_deploy", "tests", "pyproject.toml")
TESTS = ("tests/engines/native",)
LEFT_OUT = "tests/engines/native/test_build.py"
"""It tests how the library is compiled, not what is in it."""

FLAGS = (*DEBUG, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def main(arguments: list[str]) -> int:
    """Compile, test, and return pytest's exit code; a finding ends the process at once."""
    compiler = find_compiler()
    if compiler is None:
        sys.exit("needs GCC")
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        for name in COPIED:
            source, target = ROOT / name, checkout / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=ignored)
            else:
                shutil.copy(source, target)
        if (ROOT.parent / "shared").is_dir():
            (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        sources = checkout / "sgraf_deploy" / "engines" / "native"
        compile_library(compiler, sources, sources / LIBRARY, FLAGS)
        # A finding is written by C, and ends the process before pytest could show what it kept.
        options = ("-q", "--capture=sys", f"--ignore={LEFT_OUT}")
        command = [sys.executable, "-m", "pytest", *options, *TESTS]
        return subprocess.run(
            [*command, *arguments], cwd=checkout, env=watched(compiler, checkout), check=False
        ).returncode


def watched(compiler: list[str], checkout: Path) -> dict[str, str]:
    """The environment: the sanitizer's library must be loaded before Python's own.

    Python keeps memory until it ends, which is no leak, and compiled packages that were built
    without a sanitizer are none of its business.
    """
    found = subprocess.run(
        [*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        sys.exit(f"{compiler[0]} has no libasan.so; needs GCC")
    return os.environ | {
        "LD_PRELOAD": found,
        "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:detect_odr_violation=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
