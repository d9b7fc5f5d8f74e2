"""Build what is released and try it: `make dist`.

Of the last commit, into `dist/`: the sdist, and from it a wheel for Linux on x86-64 and one for
aarch64 with the scorer in C, and a pure one for everything else. All are built twice, and must be
the same byte for byte. What this processor runs is then installed in environments of its own, with
its dependencies from PyPI, and runs `sgraf-deploy demo` there.

The tag of a compiled wheel promises that it loads with glibc TAG. What it is linked with may be
newer: C takes the version of a symbol that is the oldest with the same interface, and `auditwheel`
must find none that is newer than the tag. Needs git, and Debian's gcc and gcc-aarch64-linux-gnu.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
NATIVE = "sgraf_deploy/engines/native"
LIBRARY = f"{NATIVE}/libsgraf_scorer.so"
EXTRAS = "[torch,cpu]"

TAG = (2, 17)
"""Of glibc: the oldest on aarch64, and what NumPy asks for on x86-64."""

CHECKED: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""What Python 3.11.4 and later are told; the archives are of our own making."""

MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
"""What wheels are compiled for, and how an ELF file calls it."""

INSTRUCTIONS = """
from sgraf_deploy.engines.native.library import instruction_sets
from sgraf_deploy.errors import UnavailableError
try:
    print(instruction_sets())
except UnavailableError:
    print("none")
"""


COLUMNS = ("file", "size", "compiler", "install", "demo", "its engine", "native's sets")


@dataclass(frozen=True)
class Trial:
    """A file that was installed, and what came of it; `demo` in seconds, None where not run."""

    file: Path
    compiler: bool
    install: float
    demo: float | None
    engine: str
    sets: str

    def row(self) -> tuple[str, ...]:
        """The cells of COLUMNS."""
        demo = "" if self.demo is None else f"{self.demo:.0f} s"
        compiler = "yes" if self.compiler else "no"
        install = f"{self.install:.0f} s"
        return (self.file.name, size(self.file), compiler, install, demo, self.engine, self.sets)


def main() -> None:
    """Build, check, try, and print a table; the first thing that is wrong ends it."""
    say(f"building from commit {run('git', 'rev-parse', '--short', 'HEAD').strip()}")
    for old in DIST.glob("sgraf_deploy-*"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="sgraf-deploy-dist-") as name:
        folder = Path(name)
        built = build(folder / "first", DIST)
        again = build(folder / "second", folder / "again")
        for one, other in zip(built, again, strict=True):
            digest, repeated = (hashlib.sha256(x.read_bytes()).hexdigest() for x in (one, other))
            check(digest == repeated, f"{one.name} is another one when it is built again")
            say(f"{digest}  {one.name}, {size(one)}")
        sdist, *wheels = built
        for wheel in wheels:
            check_wheel(wheel, sdist)
        here = platform.machine()
        tried = [wheel for wheel in wheels if wheel.stem.endswith((here, "any"))]
        trials = [attempt(wheel, folder, compiler=False) for wheel in tried]
        trials.append(attempt(sdist, folder, compiler=True))
        trials.append(attempt(sdist, folder, compiler=False, demo=False))
    for line in aligned([COLUMNS, *(trial.row() for trial in trials)]):
        say(line)


def build(folder: Path, target: Path) -> list[Path]:
    """The sdist of the last commit, and the wheels that are built from it."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder / "commit", **CHECKED)
    when = os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct").strip()
    found = [hatch("sdist", folder / "commit", target, {"SOURCE_DATE_EPOCH": when})]
    with tarfile.open(found[0]) as files:
        files.extractall(folder, **CHECKED)
    source = folder / found[0].name.removesuffix(".tar.gz")
    for machine in MACHINES:
        tag = f"manylinux_{TAG[0]}_{TAG[1]}_{machine}"
        chosen = {"CC": compiler_for(machine), "_PYTHON_HOST_PLATFORM": tag}
        found.append(hatch("wheel", source, target, chosen | {"SOURCE_DATE_EPOCH": when}))
    chosen = {"SGRAF_DEPLOY_NATIVE": "0"}
    return [*found, hatch("wheel", source, target, chosen | {"SOURCE_DATE_EPOCH": when})]


def hatch(kind: str, source: Path, target: Path, chosen: dict[str, str]) -> Path:
    """The file that hatchling makes of a source tree, without an environment of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "SGRAF_DEPLOY_NATIVE"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    before = set(target.glob("*"))
    run(*command, folder=source, environment=kept | chosen)
    (made,) = set(target.glob("*")) - before
    return made


def compiler_for(machine: str) -> str:
    """GCC for that machine, by the name that Debian and its children give it."""
    names = [f"{machine}-linux-gnu-gcc", *(["gcc"] if machine == platform.machine() else [])]
    found = next(filter(None, map(shutil.which, names)), None)
    package = f"gcc-{machine.replace('_', '-')}-linux-gnu"
    check(found is not None, f"there is no {names[0]}: apt-get install {package}")
    return str(found)


def check_wheel(wheel: Path, sdist: Path) -> None:
    """It holds no sources in C; a compiled one, what its tag and `scorer.h` say."""
    machine = next((name for name in MACHINES if wheel.stem.endswith(name)), None)
    with ZipFile(wheel) as files:
        names = files.namelist()
        sources = [name for name in names if name.endswith((".c", ".h"))]
        check(not sources, f"{wheel.name} holds {sources}")
        check((LIBRARY in names) == (machine is not None), f"{wheel.name}: {LIBRARY}")
        if machine is None:
            return
        elf = ELFFile(BytesIO(files.read(LIBRARY)))
        found = elf["e_machine"]
        check(found == MACHINES[machine], f"{wheel.name} is compiled for {found}")
        check(exported(elf) == declared(sdist), f"{wheel.name} exports {exported(elf)}")
    said = " ".join(run(sys.executable, "-m", "auditwheel", "show", str(wheel)).split())
    tags = re.findall(rf'platform tag: "manylinux_(\d+)_(\d+)_{machine}"', said)
    newest = max(((int(major), int(minor)) for major, minor in tags), default=None)
    check(newest is not None and newest <= TAG, f"auditwheel says of {wheel.name}: {said}")
    say(f"auditwheel: {said.partition('The wheel requires')[0]}")


def exported(elf: ELFFile) -> set[str]:
    """The names of the functions that others may call."""
    symbols = elf.get_section_by_name(".dynsym").iter_symbols()
    return {x.name for x in symbols if x["st_shndx"] != "SHN_UNDEF" and x.name}


def declared(sdist: Path) -> set[str]:
    """The functions that `scorer.h` makes public."""
    with tarfile.open(sdist) as files:
        name = f"{sdist.name.removesuffix('.tar.gz')}/{NATIVE}/scorer.h"
        header = files.extractfile(name)
        text = header.read().decode() if header else ""
    return set(re.findall(r"^PUBLIC \w+ \**(\w+)\(", text, re.MULTILINE))


def attempt(file: Path, folder: Path, *, compiler: bool, demo: bool = True) -> Trial:
    """Install a file in an environment of its own, and run the demo there.

    Engine native must be there, and be what the demo takes, where it was compiled, and only there.
    """
    say(f"installing {file.name} {'with' if compiler else 'without'} a C compiler")
    home = folder / f"env-{file.name}"
    venv.create(home, with_pip=True)
    # Nothing of whoever runs this: neither their packages nor, unless wanted, their compilers.
    unset = {"PYTHONPATH", "PYTHONHOME", "CC", "SGRAF_DEPLOY_NATIVE", "SGRAF_DEPLOY_ISA"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    path = os.pathsep.join([str(home / "bin"), *([kept["PATH"]] if compiler else [])])
    environment = kept | {"PATH": path}
    python = str(home / "bin" / "python")
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    wanted = ("--constraint", str(ROOT / "constraints.txt"), f"{file}{EXTRAS}")
    install, _ = timed(*pip, *wanted, folder=home, environment=environment)
    sets = run(python, "-c", INSTRUCTIONS, folder=home, environment=environment).strip()
    compiled = compiler or file.stem.endswith(platform.machine())
    check((sets != "none") == compiled, f"{file.name} has engine native for {sets}")
    took, engine = None, ""
    if demo:
        command = str(home / "bin" / "sgraf-deploy"), "demo"
        took, said = timed(*command, folder=home, environment=environment)
        found = re.search(r"\), engine (\S+), fp32", said)
        engine = found[1] if found else "no engine"
        check((engine == "native") == compiled, f"the demo of {file.name} takes {engine}")
    shutil.rmtree(home)
    return Trial(file, compiler, install, took, engine, sets)


def timed(*command: str, folder: Path, environment: Mapping[str, str]) -> tuple[float, str]:
    """The seconds that a command took, and what it printed."""
    start = time.perf_counter()
    said = run(*command, folder=folder, environment=environment)
    return time.perf_counter() - start, said


def run(*command: str, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints; one that fails ends this program with what it said."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    check(not done.returncode, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, whose columns begin below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def size(file: Path) -> str:
    """A file's size for a reader."""
    return f"{file.stat().st_size / 1e3:,.0f} kB"


def check(right: bool, what: str) -> None:
    """End the program with what is wrong."""
    if not right:
        sys.exit(f"dist: {what}")


def say(what: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
