"""What the tests of the command line run on, and how they run it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import click.testing
import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import ANY, check_error, holds
from support.small_models import SGR, WORDS, random_regions

from sgraf_deploy import cli
from sgraf_deploy.cli.terminal import escape
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.errors import SgrafDeployError

RANKS = 5
"""R@1, R@5, R@10, median and mean rank."""

IMAGES = 6
"""Images of the split `dev` that `write_precomp` writes."""


class Ran(click.testing.Result):
    """What a command printed and ended with.

    `error` is what its error line was made of, if any; `codes` are those of the findings that it
    made, by their messages.
    """

    error: SgrafDeployError | None
    codes: dict[str, str]

    @property
    def warned(self) -> list[str]:
        """The codes of the findings that are warned of; another warning is there as it reads."""
        return [self.codes.get(line, line) for line in lines_with("Warning: ", self.stderr)]

    @property
    def noted(self) -> list[str]:
        """The codes of the findings that are notes; another note is there as it reads."""
        return [self.codes.get(line, line) for line in lines_with("note: ", self.stdout)]


def run(*arguments: object) -> Ran:
    """Run the command line in this process."""
    error: SgrafDeployError | None = None
    codes: dict[str, str] = {}
    fail, find = cli._failure, Finding.__init__

    def remember_error(cause: Exception, shown: SgrafDeployError) -> Any:
        nonlocal error
        error = shown
        return fail(cause, shown)

    def remember_code(finding: Finding, *fields: Any, **named: Any) -> None:
        find(finding, *fields, **named)
        codes[escape(finding.message)] = finding.code

    with (
        mock.patch.object(cli, "_failure", remember_error),
        mock.patch.object(Finding, "__init__", remember_code),
    ):
        found = click.testing.CliRunner().invoke(cli.main, [str(value) for value in arguments])
    result = Ran(**vars(found))
    result.error, result.codes = error, codes
    return result


def done(*arguments: object) -> Ran:
    """Run a command that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def error_line(result: click.testing.Result) -> str:
    """The one line that a failed command ends with; nothing else may look like an error."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == result.stderr.splitlines()[-1:], result.output
    return errors[0]


def refused_line(
    result: Ran,
    kind: type[SgrafDeployError],
    *names: object,
    expected: object = ANY,
    got: object = ANY,
    hint: object = ANY,
) -> str:
    """The line of a command that an error of exactly this kind ended, whole.

    `check_error` holds for it.
    """
    line = error_line(result)
    assert type(result.error) is kind, result.error
    check_error(result.error, *names, expected=expected, got=got, hint=hint)
    assert line == f"Error: {escape(result.error)}"
    assert result.exit_code == kind.exit_code
    return line


def lines_with(prefix: str, text: str) -> list[str]:
    """The lines of what was printed that begin with `note: `, `Warning: ` and the like."""
    return [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]


def line_naming(text: str, *names: object) -> str:
    """The first line of what was printed in which all of these names stand."""
    found = [line for line in text.splitlines() if all(holds(line, name) for name in names)]
    assert found, f"no line names all of {names} in {text}"
    return found[0]


def suggested(text: str) -> list[str]:
    """The words of the one command that was printed to be typed next, without the program's."""
    (line,) = (line for line in text.splitlines() if "sgraf-deploy " in line)
    return shlex.split(line.partition("sgraf-deploy ")[2])


def recall_rows(text: str) -> dict[str, list[str]]:
    """The numbers of the tables of R@K by `MODEL i` and `MODEL t`, the last table's.

    The first row of a model, where images are the queries, ends with rsum.
    """
    found, model = {}, ""
    for line in text.splitlines():
        numbers = re.search(r"(?: +\d+(?:\.\d+)?)+$", line)
        cells = numbers[0].split() if numbers else []
        if len(cells) == RANKS + 1:
            model = line.split()[0]
        if len(cells) in (RANKS, RANKS + 1):
            found[f"{model} {'i' if len(cells) > RANKS else 't'}"] = cells
    return found


def captions_of(images: int, seed: int = 5) -> list[str]:
    """Five captions of two to nine words per image; word9999 is in no vocabulary."""
    rng = np.random.default_rng(seed)
    words = [*WORDS[4:], "word9999"]
    return [" ".join(rng.choice(words, rng.integers(2, 10))) for _ in range(5 * images)]


def write_precomp(
    folder: Path, regions: NDArray[Any] | None = None, captions: list[str] | None = None
) -> Path:
    """A folder with the split `dev`, by default of IMAGES images of the small models' shape."""
    folder.mkdir()
    features = random_regions(SGR, IMAGES, seed=3) if regions is None else regions
    np.save(folder / "dev_ims.npy", features)
    lines = captions_of(IMAGES) if captions is None else captions
    (folder / "dev_caps.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = [f"photo{row}.jpg" for row in range(len(features))]
    (folder / "dev_ids.txt").write_text("\n".join(names), encoding="utf-8")
    return folder


def tree(*roots: Path) -> dict[str, tuple[int, int]]:
    """Everything below some folders, hidden or not, with size and modification time."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for root in roots
        for path in root.rglob("*")
        if not path.is_dir()
    } | {str(path): (0, 0) for root in roots for path in root.rglob("*") if path.is_dir()}


def left_by(world: World) -> dict[str, tuple[int, int]]:
    """Whatever a command may write: into its folder, into what it reads, or beside that.

    Another process may make other bundles in the same folder at the same time.
    """
    given = (world.bundle, world.bare, world.data)
    beside = [path for one in given for path in one.parent.glob(f"*{one.name}*")]
    return tree(world.folder, *beside) | {str(path): (0, 0) for path in beside}


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change a bundle's manifest in place."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


def replace_file(bundle: Path, file: str, content: bytes) -> Path:
    """Put other content into a bundle's file, and make the manifest agree with it."""
    (bundle / file).write_bytes(content)

    def agree(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("file") == file:
                node.update(sha256=sha256(content).hexdigest(), bytes=len(content))
            node = list(node.values())
        for item in node if isinstance(node, list) else []:
            agree(item)

    return edit_manifest(bundle, agree)


@dataclass(frozen=True)
class World:
    """Good inputs that nobody changes, and an empty folder, the working one, to make bad ones in.

    `bundle` is an SGRAF bundle with everything; `bare` is SGR in fp32 without vocabulary and
    reference. `data` holds the split `dev`.
    """

    folder: Path
    checkpoints: dict[str, Path]
    vocabulary: Path
    bundle: Path
    bare: Path
    data: Path
    monkeypatch: pytest.MonkeyPatch
    until_the_end: ExitStack

    @property
    def sgr(self) -> Path:
        """The SGR checkpoint."""
        return self.checkpoints["sgr"]

    @property
    def saf(self) -> Path:
        """The SAF checkpoint."""
        return self.checkpoints["saf"]

    def write(self, name: str, content: str | bytes) -> Path:
        """A new file."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def copy(self, bundle: Path | None = None) -> Path:
        """A copy of a bundle, to be damaged."""
        return shutil.copytree(bundle or self.bundle, self.folder / "copy.sgraf")

    def precomp(
        self, regions: NDArray[Any] | None = None, captions: list[str] | None = None
    ) -> Path:
        """A folder with the split `dev`."""
        return write_precomp(self.folder / "precomp", regions, captions)
