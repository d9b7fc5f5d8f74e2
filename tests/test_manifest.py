from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from small_bundle import manifest, member, without_extras

from sgraf_deploy.config import GRAPHS
from sgraf_deploy.errors import BundleError
from sgraf_deploy.manifest import MIGRATIONS, SCHEMA_VERSION, Manifest, migrate, parse_json

Json = Any
Path = tuple[str | int, ...]
FREE = ("parity", "region_statistics", "tools")


def nodes(value: Json, path: Path = ()) -> list[Path]:
    """The paths of everything below `value` that is not free JSON, leaves and inner nodes."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: list[Path] = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list) and not (path == () and key in FREE):
            found += nodes(item, (*path, key))
    return found


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def parent_of(value: Json, path: Path) -> Json:
    for part in path[:-1]:
        value = value[part]
    return value


def changed(path: Path, change: Callable[[Json], None]) -> Json:
    """The sample manifest's JSON after `change` was called with the parent of `path`."""
    value = manifest().to_json()
    change(parent_of(value, path))
    return value


def refused(value: Json) -> str:
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


NODES = nodes(manifest().to_json())
FIELDS = [path for path in NODES if isinstance(path[-1], str)]
ITEMS = [path for path in NODES if isinstance(path[-1], int)]
NULLABLE = (
    "members.sgr.checkpoint.epoch",
    "members.sgr.checkpoint.best_rsum",
    "members.sgr.checkpoint.data_name",
    "members.sgr.reference",
    "region_statistics",
    "gate",
)


@pytest.mark.parametrize(
    "original",
    [
        manifest(),
        manifest({"saf": member("SAF", ("fp32", "fp16"))}),
        manifest({"sgr": member("SGR", ("fp16", "fp32")), "saf": member("SAF", embed=16)}),
        manifest({"sgr": member("SGR"), "sgr-2": member("SGR", embed=16), "saf": member("SAF")}),
        without_extras(manifest()),
    ],
    ids=["sgr", "saf-two-precisions", "sgraf", "three", "without-extras"],
)
def test_json_reads_back_as_it_was(original: Manifest) -> None:
    text = json.dumps(original.to_json())

    assert Manifest.from_json(parse_json(text)) == original


def test_the_samples_cover_every_field() -> None:
    assert "members.sgr.graphs.fp32.pair_scorer.inputs.5.axes" in map(dotted, NODES)
    assert len(FIELDS) > 130
    assert len(ITEMS) > 60


@pytest.mark.parametrize("path", FIELDS, ids=dotted)
def test_a_missing_field_is_named(path: Path) -> None:
    message = refused(changed(path, lambda parent: parent.pop(path[-1])))

    if path == ("members", "sgr"):
        assert message.startswith("members: expected at least one")
    elif path == ("members", "sgr", "graphs", "fp32"):
        assert message.startswith("members.*.graphs: expected a precision")
    else:
        assert message.startswith(f"{dotted(path)}: missing field; export again")


PAIR_GRAM = "members.sgr.graphs.fp32.pair_scorer.inputs.5"
"""Which older bundles lack."""


@pytest.mark.parametrize("path", [p for p in ITEMS if dotted(p) != PAIR_GRAM], ids=dotted)
def test_a_missing_input_output_or_axis_is_named(path: Path) -> None:
    message = refused(changed(path, lambda parent: parent.pop(path[-1])))

    assert message.startswith(dotted(path[:7])[: -len(".axes")] if "axes" in path else "members")


@pytest.mark.parametrize("path", NODES, ids=dotted)
def test_a_mistyped_field_is_named(path: Path) -> None:
    message = refused(changed(path, lambda parent: parent.__setitem__(path[-1], [[]])))

    assert message.startswith(dotted(path))


@pytest.mark.parametrize("path", [p for p in NODES if dotted(p) not in NULLABLE], ids=dotted)
def test_null_is_no_value(path: Path) -> None:
    message = refused(changed(path, lambda parent: parent.__setitem__(path[-1], None)))

    assert message.startswith(dotted(path))


@pytest.mark.parametrize("path", NULLABLE)
def test_null_stands_for_what_there_need_not_be(path: str) -> None:
    steps = tuple(path.split("."))
    value = changed(steps, lambda parent: parent.__setitem__(steps[-1], None))

    assert Manifest.from_json(value).to_json() == value


@pytest.mark.parametrize(
    ("path", "wrong", "says"),
    [
        ("schema_version", True, "schema_version: expected an integer, got true"),
        ("schema_version", 1, "schema_version: expected 2, got 1"),
        ("module", "SGRA", 'module: expected SGR, got "SGRA"'),
        ("tools.content", 2.9, "tools.content: expected a text, got 2.9"),
        ("members.sgr.checkpoint.epoch", 1.0, "epoch: expected an integer, got 1.0"),
        ("members.sgr.checkpoint.best_rsum", "12", "best_rsum: expected a number"),
        ("members.sgr.checkpoint.sha256", "AB" * 32, "members.sgr.checkpoint.sha256: expected 64"),
        ("members.sgr.config.bidirectional", 1, "bidirectional: expected true or false, got 1"),
        ("members.sgr.config.regions", 0, "members.sgr.config.regions: expected a size, got 0"),
        ("members.sgr.config.sgr_steps", -1, "config.sgr_steps: expected a size, got -1"),
        ("members.sgr.graphs.fp32.scorer.sha256", "abc", "fp32.scorer.sha256: expected 64 hex"),
        ("members.sgr.graphs.fp32.scorer.bytes", -1, "scorer.bytes: expected a size, got -1"),
        ("members.sgr.graphs.fp32.scorer.opset", "18", "scorer.opset: expected an integer"),
        ("members.sgr.graphs.fp32.scorer.inputs.0.dtype", "float64", "inputs.0.dtype: expected"),
        ("members.sgr.graphs.fp32.scorer.inputs.0.axes.1", 4, "fp32.scorer.inputs.0: expected"),
        ("members.sgr.graphs.fp32.scorer.inputs.0.axes.1", 3.0, "axes.1: expected a text or an"),
        ("members.sgr.graphs.fp32.scorer.outputs.0.name", "scores", "scorer.outputs.0: expected"),
    ],
)
def test_a_wrong_value_is_named(path: str, wrong: Json, says: str) -> None:
    steps: Path = tuple(int(part) if part.isdigit() else part for part in path.split("."))
    value = changed(steps, lambda parent: parent.__setitem__(steps[-1], wrong))

    assert says in refused(value)


@pytest.mark.parametrize(
    "where", ["", "members", "members.sgr", "members.sgr.config", "vocabulary", "gate"]
)
def test_an_unknown_field_is_named(where: str) -> None:
    path: Path = (*where.split("."), "more") if where else ("more",)
    value = changed(path, lambda parent: parent.__setitem__("more", 1))

    assert dotted(path) in refused(value)


def test_an_unknown_graph_or_precision_is_named() -> None:
    value = manifest().to_json()
    graphs = value["members"]["sgr"]["graphs"]
    graphs["fp8"] = copy.deepcopy(graphs["fp32"])
    assert "members.sgr.graphs.fp8" in refused(value)

    graphs.pop("fp8")
    graphs["fp32"]["explain"] = graphs["fp32"]["scorer"]
    assert "members.sgr.graphs.fp32.explain" in refused(value)


def test_a_long_wrong_value_is_shown_shortened() -> None:
    message = refused(changed(("module",), lambda parent: parent.update(module="S" * 9999)))

    assert len(message) < 200


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "../other/vocab.json",
        "sgr/../../vocab.json",
        "sgr/..",
        "..",
        ".",
        "",
        "./vocab.json",
        "sgr//a.onnx",
        "sgr/",
        "sgr\\a.onnx",
        "a\0b",
        "manifest.json",
        "engines/a.plan",
    ],
)
def test_a_path_out_of_the_bundle_is_refused(file: str) -> None:
    value = changed(("vocabulary", "file"), lambda parent: parent.update(file=file))

    assert refused(value).startswith("vocabulary.file: expected ")


@pytest.mark.parametrize("lacking", ["tokenizer", "vocabulary"])
def test_tokenizer_and_vocabulary_come_together(lacking: str) -> None:
    value = manifest().to_json()
    value[lacking] = None

    assert refused(value).startswith(f"{lacking}: expected a value")


def test_signatures_are_those_of_the_precision() -> None:
    value = manifest({"sgr": member("SGR", ("fp32", "fp16"))}).to_json()
    graphs = value["members"]["sgr"]["graphs"]
    graphs["fp16"]["scorer"] = graphs["fp32"]["scorer"]

    assert refused(value).startswith("members.sgr.graphs.fp16.scorer.inputs.0: expected")


def test_properties_speak_for_every_member() -> None:
    both = manifest({"sgr": member("SGR", ("fp16", "fp32")), "saf": member("SAF", ("fp32",))})
    full = manifest({"sgr": member("SGR", ("fp16", "fp32"))})

    assert both.precisions == ("fp32",)
    assert full.precisions == ("fp32", "fp16")
    assert (full.vocab_size, full.regions, full.img_dim) == (11, 3, 5)


def test_files_lists_each_file_once() -> None:
    files = [file.file for file in manifest().files]

    assert files == [
        *(f"sgr/fp32/{name}.onnx" for name in GRAPHS),
        "reference/sgr.safetensors",
        "vocab.json",
        "reference/gate.npz",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ('{"a": 1', "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "^b.c: expected one such field, got 2"),
        ('{"a": NaN}', "^a: expected a finite number, got NaN"),
        ('{"a": -Infinity}', "^a: expected a finite number, got -Infinity"),
        ("[" * 200_000, "not valid JSON"),
    ],
    ids=["empty", "cut-off", "not-utf-8", "repeated", "nan", "infinity", "deep"],
)
def test_broken_json_is_refused(text: str | bytes, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        parse_json(text)


def test_the_current_version_needs_no_migration() -> None:
    raw = manifest().to_json()

    assert migrate(raw) == raw
    assert set(MIGRATIONS) == set(range(1, SCHEMA_VERSION))


def test_migrations_are_applied_in_turn() -> None:
    raw = {"schema_version": 1, "name": "a"}

    done = migrate(
        raw,
        migrations={
            1: lambda old: {"title": old["name"], "from": old["schema_version"]},
            2: lambda old: {**old, "title": old["title"] + "b", "then": old["schema_version"]},
        },
        version=3,
    )

    assert done == {"schema_version": 3, "title": "ab", "from": 1, "then": 2}
    assert raw == {"schema_version": 1, "name": "a"}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "newer sgraf-deploy.*upgrade sgraf-deploy"),
        ({"schema_version": 0}, "too old to be read: expected 2, got 0; export again"),
        ({"schema_version": "1"}, "schema_version: expected an integer"),
        ({}, "schema_version: missing field"),
        ([], "manifest: expected an object"),
    ],
    ids=["newer", "older", "mistyped", "missing", "no-object"],
)
def test_a_version_that_cannot_be_read_is_refused(raw: Json, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        migrate(raw)


def test_a_gap_in_the_migrations_is_refused() -> None:
    with pytest.raises(BundleError, match="expected 3, got 2"):
        migrate({"schema_version": 1}, migrations={1: dict}, version=3)


def test_graphs_from_before_there_was_a_gram_matrix_are_read_but_not_mixed() -> None:
    raw = manifest().to_json()
    graphs = raw["members"]["sgr"]["graphs"]["fp32"]
    assert graphs["image_encoder"]["outputs"].pop()["name"] == "region_gram"
    message = refused(raw)
    assert "graphs.fp32.scorer.inputs.5: got TensorSpec(name='region_gram'" in message
    assert graphs["scorer"]["inputs"].pop()["name"] == "region_gram"
    assert "graphs.fp32.pair_scorer.inputs.5" in refused(raw)
    assert graphs["pair_scorer"]["inputs"].pop(5)["name"] == "region_gram"
    assert Manifest.from_json(raw).to_json() == raw


def test_pair_scorers_from_before_they_took_the_gram_matrix_are_read() -> None:
    raw = manifest().to_json()
    inputs = raw["members"]["sgr"]["graphs"]["fp32"]["pair_scorer"]["inputs"]
    assert inputs.pop(5)["name"] == "region_gram"
    assert Manifest.from_json(raw).to_json() == raw
