"""Numbers of options that no program can do: refused as they are read."""

from __future__ import annotations

from typing import Any

import click
import pytest
from support.cli_world import IMAGES, World, run
from support.refusals import ANY, check_error, naming, refused

from sgraf_deploy import cli
from sgraf_deploy.cli.bench_scaling import parse_sizes
from sgraf_deploy.cli.option_types import THREADS, FiniteRange, byte_count
from sgraf_deploy.config import MOST_THREADS
from sgraf_deploy.errors import InputError

OPTION = click.Option(["--bytes"])
CONTEXT = click.Context(click.Command("nothing"))


def parameters(command: click.Command) -> list[click.Parameter]:
    """Every option and argument of a command and of those below it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(each for one in below for each in parameters(one))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("500000", 500_000), ("0.5kB", 500), ("20GB", 20 * 10**9), ("9TB", 9 * 10**12)],
)
def test_bytes_are_read(text: str, expected: int) -> None:
    assert byte_count(CONTEXT, OPTION, text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "0.1", "1GiB", "1e9", "٣", "9" * 400, "9" * 18 + "TB", str(2**63)]
)
def test_bytes_that_no_file_has_are_refused(text: str) -> None:
    with refused(InputError, "--bytes", expected=naming("20GB"), got=text):
        byte_count(CONTEXT, OPTION, text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "x", "-0.1"])
def test_only_finite_numbers_in_their_range_are_taken(text: str) -> None:
    with pytest.raises(click.BadParameter):
        FiniteRange(min=0).convert(text, OPTION, CONTEXT)


@pytest.mark.parametrize("text", ["0x5", "5x0", "9" * 5000 + "x1", "1x" + "9" * 10])
def test_sizes_that_no_matrix_has_are_refused(text: str) -> None:
    with refused(InputError, "--size", expected=ANY, got=text):
        parse_sizes([text])


def test_plans_are_compiled_for_captions_of_a_word_at_least(world: World) -> None:
    assert run("compile", world.bundle, "--max-words", 2).exit_code == InputError.exit_code


def test_a_finite_number_is_taken() -> None:
    assert FiniteRange(min=0, min_open=True).convert("0.5", OPTION, CONTEXT) == 0.5


def test_no_option_takes_a_range_of_floats_that_nan_is_in() -> None:
    found = parameters(cli.main)
    assert any(isinstance(each.type, FiniteRange) for each in found)
    assert not [each.name for each in found if type(each.type) is click.FloatRange]


def test_threads_are_bounded_everywhere() -> None:
    found = [each for each in parameters(cli.main) if each.name == "threads"]
    assert len(found) > 5
    assert all(each.type is THREADS for each in found)
    with pytest.raises(click.BadParameter):
        THREADS.convert(MOST_THREADS + 1, OPTION, CONTEXT)


@pytest.mark.parametrize("row", ["9" * 5000, "٣", "²", "1_0", "6"])
def test_a_row_that_is_no_number_or_not_there_is_refused(world: World, row: Any) -> None:
    found = run("rerank", world.bundle, "--data", world.data, "--split", "dev", "--image", row)
    assert found.exit_code == InputError.exit_code
    assert found.error is not None
    check_error(found.error, "--image", expected=naming(5), got=row)


@pytest.mark.parametrize("command", ["rerank", "explain"])
def test_a_caption_of_other_bytes_than_utf_8_is_refused(world: World, command: str) -> None:
    image = ["--image", 1] if command == "explain" else []
    data = ("--data", world.data, "--split", "dev")
    found = run(command, world.bundle, *data, *image, "--caption", "a \udcff cup")
    assert found.exit_code == InputError.exit_code
    assert found.error is not None
    check_error(found.error, "--caption", got=naming("udcff"))


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("explain", "--image", 1, "--caption", "word1"), ("--json", "--html")),
        (("bench", "--limit-images", 2), ("--json", "--plot")),
        (("bench", "--limit-images", 2), ("--html", "--json")),
        (("compare", "none.json", "none.json"), ("--json", "--plot")),
    ],
)
@pytest.mark.parametrize(("first", "second"), [("same.out", "./same.out"), ("-", "other")])
def test_results_have_a_file_each(
    world: World, command: tuple[object, ...], options: tuple[str, str], first: str, second: str
) -> None:
    name, *more = command
    data = () if name == "compare" else (world.bundle, "--data", world.data, "--split", "dev")
    found = run(name, *data, *more, options[0], first, options[1], second)
    assert found.exit_code == InputError.exit_code
    assert found.error is not None
    check_error(found.error, *(options if first != "-" else options[:1]), expected=ANY)
    assert not [*world.folder.glob("*.out"), *world.folder.glob("-")]


def test_a_picture_needs_the_page_that_it_is_for(world: World) -> None:
    asked = ("--data", world.data, "--split", "dev", "--image", 1, "--caption", "word1")
    found = run("explain", world.bundle, *asked, "--picture", "photo.jpg")
    assert found.error is not None
    check_error(found.error, "--picture", expected=naming("--html"))


def test_a_name_that_several_images_have_is_refused(world: World) -> None:
    data = world.precomp()
    (data / "dev_ids.txt").write_text("a\nb\n" + "twice\n" * (IMAGES - 2), encoding="utf-8")
    asked = ("rerank", world.bundle, "--data", data, "--split", "dev", "--image")
    assert run(*asked, "b").exit_code == 0
    found = run(*asked, "twice")
    assert found.error is not None
    check_error(found.error, "--image", got=naming("twice", 2, 3))
