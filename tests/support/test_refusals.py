"""The helpers that the other tests assert errors with."""

from __future__ import annotations

import pytest
from support.refusals import check_error, holds, naming, refused

from sgraf_deploy.errors import BundleError, DataError, InputError

ERROR = DataError("file a/b.npy, row 12", expected=3, got="4 rows", hint="use --limit-images")


def test_what_is_right_passes() -> None:
    with refused(
        DataError, "a/b.npy", 12, expected=3, got="4 rows", hint="--limit-images"
    ) as found:
        raise ERROR
    assert found.error is ERROR
    check_error(ERROR, expected=naming(3), got=naming(4, "rows"))


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        (["b.np"], {}),
        ([1], {}),
        ([], {"expected": 4}),
        ([], {"got": "4"}),
        ([], {"got": None}),
        ([], {"got": naming(5)}),
        ([], {"got": naming("row")}),
        ([], {"hint": None}),
        ([], {"hint": "--limit"}),
        ([], {"got": naming(4, "row")}),
    ],
)
def test_what_is_wrong_fails(names: list[object], fields: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        check_error(ERROR, *names, **fields)


def test_a_sentence_is_asserted_by_its_names() -> None:
    check_error(ERROR, got=naming(4, "rows"), expected=naming(3), hint=naming("--limit-images"))
    check_error(ERROR, hint=naming())
    for field in ("expected", "got", "hint"):
        with pytest.raises(AssertionError):
            check_error(DataError("a file"), **{field: naming()})


@pytest.mark.parametrize("kind", [InputError, BundleError])
def test_the_kind_is_exact(kind: type[InputError]) -> None:
    with pytest.raises((AssertionError, DataError)), refused(kind):
        raise ERROR


def test_names_are_whole() -> None:
    assert holds("run --fp16 x", "--fp16")
    assert not holds("run --fp16s x", "--fp16")
    assert not holds("page 12", 2)
    assert not holds("3.5 of 6,200", 5)
    assert not holds("3.5 of 6,200", 200)
    assert not holds("3.5 of 6,200", 3)
    assert holds("3, 5 and 6.", 6)
