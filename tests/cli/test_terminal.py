"""Nothing that a terminal would obey reaches it, whatever names, captions and errors hold."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from cli.test_process import start
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.cli_world import (
    World,
    captions_of,
    done,
    edit_manifest,
    error_line,
    lines_with,
    run,
    write_precomp,
)
from support.refusals import holds

import sgraf_deploy
from sgraf_deploy.cli.terminal import echo_json, escape, shown_messages, table, warn
from sgraf_deploy.engines.ort import OrtGraph
from sgraf_deploy.errors import DataError, EngineMemoryError

PACKAGE = Path(sgraf_deploy.__file__).parent
WRITERS = {"cli/terminal.py"}
CHILDREN = {"bench/point.py", "bench/gpu/job.py"}
"""Processes of their own, whose output `bench scaling` and `bench gpu` read through pipes."""

OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Everything but the line feeds that end the program's own lines."""

HOSTILE = "\x1b[2J\r\x08\x00\x9b\u202e\u2066\u2028\udc80\nwrote ok\t\x7f"
TIMELESS = settings(deadline=None)
QUIET = settings(
    TIMELESS,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def texts() -> st.SearchStrategy[str]:
    """Any text, surrogates and controls often among it."""
    any_character = st.characters(codec=None)
    return st.text(st.sampled_from(HOSTILE) | any_character, max_size=40)


def names() -> st.SearchStrategy[str]:
    """Any name that a file may have, undecodable bytes included."""
    raw = st.binary(min_size=1, max_size=30).map(os.fsdecode)
    hostile = HOSTILE.replace("\x00", "")
    return (raw | st.just(hostile)).map(lambda name: re.sub("[/\x00]", "", name).strip("."))


def printed(result: click.testing.Result) -> list[str]:
    """The lines on both streams, none of which a terminal would obey."""
    for stream in (result.stdout, result.stderr):
        assert not OBEYED.search(stream)
    return [*result.stdout.split("\n"), *result.stderr.split("\n")]


@TIMELESS
@given(texts())
@example(HOSTILE)
def test_what_a_terminal_obeys_is_escaped(text: str) -> None:
    shown = escape(text)

    assert not OBEYED.search(shown)
    assert "\n" not in shown
    shown.encode()
    rest = re.sub(r"\\(?:[tnr]|x[0-9a-f]{2}|u[0-9a-f]{4})", "", shown)
    assert len(rest) <= len(text)


@pytest.mark.parametrize(
    "text", ["two dogs", "äöü ≤ × 犬", "👩\u200d💻", "C:\\new\\table", "\u00ad\ufeff", "e\u0301"]
)
def test_what_people_write_is_left_alone(text: str) -> None:
    assert escape(text) == text


def test_every_kind_has_its_escape() -> None:
    assert escape("\x1b\r\n\t\x00\x7f\x85") == r"\x1b\r\n\t\x00\x7f\x85"
    assert escape("\u202e\u2029\udcff\u061c") == r"\u202e\u2029\udcff\u061c"


@TIMELESS
@given(st.lists(texts(), min_size=1, max_size=3))
def test_a_cell_stays_in_its_row(cells: list[str]) -> None:
    lines = table([cells, ["x"] * len(cells)], cells)

    assert len(lines) == 4
    assert not any(OBEYED.search(line) or "\n" in line for line in lines)


def test_a_cell_of_several_values_has_a_line_for_each() -> None:
    assert len(table([[("a\nb", "c"), "d"]], ["one", "two"])) == 4


@TIMELESS
@given(st.dictionaries(texts(), texts(), max_size=3))
@example({"": "\x7f\x85"})
def test_json_on_the_terminal_keeps_every_value(value: dict[str, str]) -> None:
    @click.command()
    def show() -> None:
        echo_json(value)

    result = click.testing.CliRunner().invoke(show)

    printed(result)
    assert json.loads(result.stdout) == value


@QUIET
@given(names().filter(bool))
@example("\x1b]0;owned\x07\nwrote ok.sgraf")
def test_a_file_name_is_one_line_of_an_error(world: World, name: str) -> None:
    lines = printed(run("inspect", "./" + name))

    assert lines[1].startswith("Error: ")
    assert lines[2:] == [""]


@QUIET
@given(names())
@example(HOSTILE.replace("\x00", ""))
def test_wrong_usage_shows_no_more_than_text(name: str) -> None:
    for words in (
        ["-" + name],
        ["inspect", "a", name],
        ["inspect", "a", "-" + name],
        ["export", "a", "--precision", name],
    ):
        result = run(*words)
        lines = printed(result)
        assert sum(line.startswith(("wrote", "Error")) for line in lines) <= 1


@QUIET
@given(st.text(st.sampled_from(HOSTILE) | st.characters(codec="utf-8"), max_size=30))
def test_a_query_is_one_line(world: World, text: str) -> None:
    caption = f"word3 {text.replace(chr(0), '')} word4"
    data = ("--data", world.data, "--split", "dev", "--engine", "ort", "--top-k", 1)

    lines = printed(run("rerank", world.bundle, *data, "--caption", caption))

    assert re.search(r"\bword3 .* word4\b", lines[1])
    assert holds(lines[2], 1)
    assert holds(lines[2], 6)
    assert lines[3].split()[0] == "rank"


def test_captions_and_image_names_are_cells(world: World) -> None:
    hostile = "word3 \x1b[31m\u202eword4\x85 wrote \u2028ok"
    data = world.precomp(captions=[*captions_of(5), *[hostile] * 5])
    names = [f"a{row}\x1b[2J\x9b.jpg" for row in range(6)]
    (data / "dev_ids.txt").write_text("\n".join(names), encoding="utf-8")
    where = ("--data", data, "--split", "dev")

    by_caption = printed(run("rerank", world.bundle, *where, "--caption", "word3"))
    by_image = printed(run("rerank", world.bundle, *where, "--image", 5, "--top-k", 30))

    assert sum(r"\x1b[2J\x9b" in line for line in by_caption) == 6
    assert sum(r"word3 \x1b[31m\u202eword4\x85 wrote \u2028ok" in line for line in by_image) == 5


def test_a_manifest_holds_no_more_than_text(world: World) -> None:
    text = HOSTILE.replace("\udc80", "")  # Which no manifest may hold.

    def change(manifest: dict[str, object]) -> None:
        for member in manifest["members"].values():  # type: ignore[attr-defined]
            member["checkpoint"]["file"] = text
        manifest["tokenizer"] = text

    bundle = edit_manifest(world.copy(), change)

    plain, as_json = run("inspect", bundle), run("inspect", bundle, "--json")

    printed(plain), printed(as_json)
    assert plain.exit_code == as_json.exit_code == 0
    assert r"\nwrote ok" in plain.stdout
    assert json.loads(as_json.stdout)["tokenizer"] == text


def test_an_error_of_somebody_else_is_text(world: World) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError(f"what {HOSTILE}", got=HOSTILE)

    world.monkeypatch.setattr("sgraf_deploy.distributed.parts.open_precomp", fail)
    result = run("eval", world.bundle, "--data", world.data, "--split", "dev")

    printed(result)
    assert r"\x1b[2J" in error_line(result)


def test_an_error_that_nobody_expected_is_text_too(world: World) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(HOSTILE)

    world.monkeypatch.setattr("sgraf_deploy.distributed.parts.open_precomp", fail)
    result = run("eval", world.bundle, "--data", world.data, "--split", "dev")

    lines = printed(result)
    assert result.exit_code == 1
    assert "wrote ok" not in lines
    assert lines[-2].startswith("Error: ")
    assert r"RuntimeError: \x1b[2J" in lines[-2]


@pytest.mark.parametrize("verbose", [False, True])
def test_what_is_logged_is_shown_once(
    verbose: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own refuse a bad format
    log = logging.getLogger("sgraf_deploy.runtime.any")
    with shown_messages(verbose=verbose):
        log.warning("halving %s", HOSTILE)
        log.debug("in between")
        log.warning("%d of them", "no number")
    assert logging.getLogger().handlers == []

    lines = capsys.readouterr().err.split("\n")
    assert not any(OBEYED.search(line) for line in lines)
    between = ["Debug: in between"] if verbose else []
    assert lines == [f"Warning: halving {escape(HOSTILE)}", *between, "Warning: %d of them", ""]


def test_pythons_warnings_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with shown_messages(verbose=False):
            warnings.warn(f"odd {HOSTILE}", UserWarning, stacklevel=1)

    assert capsys.readouterr().err == f"Warning: UserWarning: odd {escape(HOSTILE)}\n"
    assert warnings.showwarning is before


def test_an_interrupted_replacement_is_said_to_be_completed(world: World) -> None:
    shutil.move(world.copy(), world.folder / ".copy.sgraf.new-0123456789abcdef")

    result = done("inspect", "copy.sgraf")

    (line,) = lines_with("Warning: ", result.stderr)
    assert holds(line, "copy.sgraf")
    assert (world.folder / "copy.sgraf").is_dir()


def test_halved_work_is_said_to_be(world: World) -> None:
    encode = OrtGraph.run

    def fail_on_many(graph: OrtGraph, inputs: Any, *more: Any) -> Any:
        if "regions" in inputs and inputs["regions"].shape[0] > 3:
            raise EngineMemoryError("no room")
        return encode(graph, inputs, *more)

    world.monkeypatch.setattr(OrtGraph, "run", fail_on_many)
    words = ("eval", world.bundle, "--data", world.data, "--split", "dev", "--engine", "ort")

    result = done(*words)

    (line,) = lines_with("Warning: ", result.stderr)
    assert holds(line, "no room")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_any_encoding_of_a_terminal_will_do(world: World, encoding: str) -> None:
    data = write_precomp(world.folder / os.fsdecode(b"d\xff\x1b[2J"))
    (data / "dev_ids.txt").write_text("\n".join(["犬\x9b.jpg"] * 6), encoding="utf-8")
    words = ("rerank", world.bundle, "--data", data, "--split", "dev", "--caption", "word3 ≤")

    found = start(*words, variables={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    wrong = start("eval", os.fsdecode(b"no\xff"), *words[2:6])

    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.count(r"\u72ac\x9b.jpg") == 6
    assert wrong.returncode == 2
    assert r"no\udcff" in wrong.stderr


def test_a_process_shows_warnings_once(world: World) -> None:
    """The installed command and not a test's runner: no handler but the program's own."""
    shutil.move(world.copy(), world.folder / ".copy.sgraf.new-0123456789abcdef")

    finished = start("inspect", "copy.sgraf")

    assert finished.returncode == 0
    assert finished.stderr.startswith("Warning: ")
    assert len(finished.stderr.splitlines()) == 1


def direct_writes(tree: ast.AST) -> Iterator[str]:
    """Every place that writes to the terminal by another way than `cli/terminal.py`."""
    harmless = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("flush", "fileno", "isatty")
    }
    forbidden = re.compile(
        r"print|pprint|sys\.(__)?std(out|err)(__)?|traceback\.print_\w+|logging\.(basicConfig|StreamHandler)"
        r"|click\.(echo|secho|echo_via_pager|progressbar|prompt|confirm|pause|clear)"
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in harmless:
            if forbidden.fullmatch(text := ast.unparse(node)):
                yield f"line {node.lineno}: {text}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if forbidden.fullmatch(f"{node.module}.{alias.name}"):
                    yield f"line {node.lineno}: from {node.module} import {alias.name}"


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).as_posix() not in WRITERS | CHILDREN
    ],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_one_module_writes_to_the_terminal(path: Path) -> None:
    assert list(direct_writes(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "source",
    [
        "print('a')",
        "click.echo('a')",
        "from click import secho",
        "sys.stderr.write('a')",
        "from sys import stdout",
        "traceback.print_exc()",
        "click.progressbar(length=2, file=sys.stderr)",
    ],
)
def test_the_rule_sees(source: str) -> None:
    assert list(direct_writes(ast.parse(source)))


def test_the_rule_lets_pass() -> None:
    source = "sys.stdout.flush()\necho('a')\nclick.option('-a')\nlogging.getLogger('a')"
    assert list(direct_writes(ast.parse(source))) == []


def test_warnings_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    warn("a\nb")
    assert capsys.readouterr() == ("", "Warning: a\\nb\n")
