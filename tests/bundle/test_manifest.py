from __future__ import annotations

import copy
import json

import pytest
from support.manifests import Json, Path, error_of, parent_of, put, steps_of
from support.mutations import Tried
from support.refusals import ANY, check_error, holds, naming, place, refused
from support.small_bundle import manifest, member, with_combined, without_extras

from sgraf_deploy.bundle.manifest import SCHEMA_VERSION, Manifest, parse_json
from sgraf_deploy.bundle.migrations import MIGRATIONS, migrate
from sgraf_deploy.config import GRAPHS
from sgraf_deploy.errors import BundleError, SgrafDeployError
from sgraf_deploy.schema import shown

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


def without(path: Path) -> Json:
    """The sample manifest's JSON without what is at a path."""
    value = manifest().to_json()
    parent_of(value, path).pop(path[-1])
    return value


def replaced(path: Path, wrong: Json) -> Json:
    """The sample manifest's JSON with something else, or something more, at a path."""
    value = manifest().to_json()
    put(value, path, wrong)
    return value


def assert_below(error: SgrafDeployError, *path: str | int) -> None:
    """The error is about this field or one inside it."""
    assert f"{place(error)}.".startswith(f"{dotted(path)}."), error.what


NODES = nodes(manifest().to_json())
FIELDS = [path for path in NODES if isinstance(path[-1], str)]
ITEMS = [path for path in NODES if isinstance(path[-1], int)]
NULLABLE = (
    "members.sgr.checkpoint.epoch",
    "members.sgr.checkpoint.best_rsum",
    "members.sgr.checkpoint.data_name",
    "members.sgr.reference",
    "region_statistics",
    "extractor",
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
        with_combined(manifest(), "fp32"),
    ],
    ids=["sgr", "saf-two-precisions", "sgraf", "three", "without-extras", "combined"],
)
def test_json_reads_back_as_it_was(original: Manifest) -> None:
    text = json.dumps(original.to_json())

    assert Manifest.from_json(parse_json(text)) == original


def test_a_loop_goes_on_and_tells_all_that_failed_by_name() -> None:
    tried = Tried()
    for name in ("first", "second", "third"):
        with tried(name):
            if name != "second":
                raise ValueError
    with pytest.raises(pytest.fail.Exception) as caught, tried:
        pass
    told = str(caught.value)
    assert [name for name in ("first", "second", "third") if name in told] == ["first", "third"]


def test_the_samples_cover_every_field() -> None:
    assert "members.sgr.graphs.fp32.pair_scorer.inputs.5.axes" in map(dotted, NODES)
    assert len(FIELDS) > 130
    assert len(ITEMS) > 60


LAST: dict[Path, str] = {
    ("members", "sgr"): "members",
    ("members", "sgr", "graphs", "fp32"): "members.*.graphs",
}
OPTIONAL = (("extractor", "files", "projection"),)
"""What need not be there."""
"""Of what there must be at least one, that which then has none."""


def test_a_missing_field_is_named() -> None:
    with Tried() as trying:
        for path in (path for path in FIELDS if path not in OPTIONAL):
            with trying(dotted(path)):
                error = error_of(without(path))
                assert place(error) == LAST.get(path, dotted(path))
                if path not in LAST:
                    check_error(error, expected=None, got=None, hint="sgraf-deploy export")


IMAGE_GRAM = "members.sgr.graphs.fp32.image_encoder.outputs.2"
PAIR_GRAM = "members.sgr.graphs.fp32.pair_scorer.inputs.5"
"""Which older bundles lack: see the last two tests."""


def test_a_missing_input_output_or_axis_is_named() -> None:
    with Tried() as trying:
        for path in (path for path in ITEMS if dotted(path) not in {IMAGE_GRAM, PAIR_GRAM}):
            with trying(dotted(path)):
                error = error_of(without(path))
                assert_below(error, *(path[:7] if "axes" in path else path[:6]))


def test_a_mistyped_field_is_named() -> None:
    with Tried() as trying:
        for path in NODES:
            with trying(dotted(path)):
                assert_below(error_of(replaced(path, [[]])), *path)


def test_null_is_no_value() -> None:
    with Tried() as trying:
        for path in (path for path in NODES if dotted(path) not in NULLABLE):
            with trying(dotted(path)):
                assert_below(error_of(replaced(path, None)), *path)


def test_null_stands_for_what_there_need_not_be() -> None:
    with Tried() as trying:
        for path in NULLABLE:
            with trying(path):
                value = replaced(steps_of(path), None)
                assert Manifest.from_json(value).to_json() == value


SCORER = "members.sgr.graphs.fp32.scorer"
WRONG: list[tuple[str, Json, str, object]] = [
    ("schema_version", True, "schema_version", "true"),
    ("schema_version", 1, "schema_version", 1),
    ("module", "SGRA", "module", '"SGRA"'),
    ("tools.content", 2.9, "tools.content", 2.9),
    ("members.sgr.checkpoint.epoch", 1.0, "members.sgr.checkpoint.epoch", 1.0),
    ("members.sgr.checkpoint.best_rsum", "12", "members.sgr.checkpoint.best_rsum", '"12"'),
    (
        "members.sgr.checkpoint.sha256",
        "AB" * 32,
        "members.sgr.checkpoint.sha256",
        f'"{"AB" * 32}"',
    ),
    ("members.sgr.config.bidirectional", 1, "members.sgr.config.bidirectional", 1),
    ("members.sgr.config.regions", 0, "members.sgr.config.regions", 0),
    ("members.sgr.config.sgr_steps", -1, "members.sgr.config.sgr_steps", -1),
    ("extractor.identity", "abc", "extractor.identity", '"abc"'),
    ("extractor.recipe.file", "../a.json", "extractor.recipe.file", '"../a.json"'),
    (f"{SCORER}.sha256", "abc", f"{SCORER}.sha256", '"abc"'),
    (f"{SCORER}.bytes", -1, f"{SCORER}.bytes", -1),
    (f"{SCORER}.opset", "18", f"{SCORER}.opset", '"18"'),
    (f"{SCORER}.inputs.0.dtype", "float64", f"{SCORER}.inputs.0.dtype", '"float64"'),
    (f"{SCORER}.inputs.0.axes.1", 4, f"{SCORER}.inputs.0", ANY),
    (f"{SCORER}.inputs.0.axes.1", 3.0, f"{SCORER}.inputs.0.axes.1", 3.0),
    (f"{SCORER}.outputs.0.name", "scores", f"{SCORER}.outputs.0", ANY),
]
"""A field, what it may not be, the field that the error names, and what it says it got."""


def test_a_wrong_value_is_named() -> None:
    with Tried() as trying:
        for path, wrong, named, got in WRONG:
            with trying(f"{path} = {wrong!r}"):
                error = error_of(replaced(steps_of(path), wrong), got=got)
                assert place(error) == named


def test_an_unknown_field_is_named() -> None:
    with Tried() as trying:
        for where in ("", "members.sgr", "members.sgr.config", "vocabulary", "extractor", "gate"):
            path = f"{where}.more".removeprefix(".")
            with trying(path):
                error = error_of(replaced(steps_of(path), 1), expected=None, got=None)
                assert place(error) == path


def test_an_unknown_member_graph_or_precision_is_named() -> None:
    error = error_of(replaced(("members", "more"), 1), got=1)
    assert place(error) == "members.more"

    value = manifest().to_json()
    graphs = value["members"]["sgr"]["graphs"]
    graphs["fp8"] = copy.deepcopy(graphs["fp32"])
    assert_below(error_of(value), "members.sgr.graphs.fp8")

    graphs.pop("fp8")
    graphs["fp32"]["explain"] = graphs["fp32"]["scorer"]
    assert_below(error_of(value), "members.sgr.graphs.fp32.explain")


def test_an_extractor_has_a_backbone_and_nothing_unknown() -> None:
    value = manifest().to_json()
    files = value["extractor"]["files"]
    files["head"] = files["projection"]
    assert_below(error_of(value, got='"head"'), "extractor.files.head")

    files.pop("head")
    files["detector"] = files.pop("backbone")
    assert place(error_of(value)) == "extractor.files.backbone"


def test_a_long_wrong_value_is_shown_shortened() -> None:
    assert len(str(error_of(replaced(("module",), "S" * 9999)))) < 200


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
    error = error_of(replaced(("vocabulary", "file"), file), got=shown(file))

    assert place(error) == "vocabulary.file"


@pytest.mark.parametrize("lacking", ["tokenizer", "vocabulary"])
def test_tokenizer_and_vocabulary_come_together(lacking: str) -> None:
    value = manifest().to_json()
    value[lacking] = None

    assert place(error_of(value, got="null")) == lacking


def test_signatures_are_those_of_the_precision() -> None:
    value = manifest({"sgr": member("SGR", ("fp32", "fp16"))}).to_json()
    graphs = value["members"]["sgr"]["graphs"]
    graphs["fp16"]["scorer"] = graphs["fp32"]["scorer"]

    assert place(error_of(value)) == "members.sgr.graphs.fp16.scorer.inputs.0"


def test_properties_speak_for_every_member() -> None:
    both = manifest({"sgr": member("SGR", ("fp16", "fp32")), "saf": member("SAF", ("fp32",))})
    full = manifest({"sgr": member("SGR", ("fp16", "fp32"))})

    assert both.precisions == ("fp32",)
    assert full.precisions == ("fp32", "fp16")
    assert (full.vocab_size, full.regions, full.img_dim) == (11, 3, 5)


def test_files_lists_each_file_once() -> None:
    files = [file.file for file in with_combined(manifest(), "fp32").files]

    assert files == [
        *(f"sgr/fp32/{name}.onnx" for name in GRAPHS),
        "combined/fp32/combined.onnx",
        "reference/sgr.safetensors",
        "vocab.json",
        "reference/gate.npz",
        "extractor/extractor.json",
        "extractor/backbone.onnx",
        "extractor/projection.npz",
    ]


@pytest.mark.parametrize(
    "text",
    ["", '{"a": 1', b"\xff\xfe{}", "[" * 200_000],
    ids=["empty", "cut-off", "not-utf-8", "deep"],
)
def test_broken_json_is_refused(text: str | bytes) -> None:
    with refused(BundleError, "JSON") as found:
        parse_json(text)
    assert isinstance(found.error.__cause__, ValueError)


@pytest.mark.parametrize(
    ("text", "path", "got"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "b.c", naming(2)),
        ('{"a": NaN}', "a", "NaN"),
        ('{"a": -Infinity}', "a", "-Infinity"),
    ],
    ids=["repeated", "nan", "infinity"],
)
def test_what_json_lets_pass_is_refused(text: str, path: str, got: object) -> None:
    with refused(BundleError, got=got) as found:
        parse_json(text)
    assert place(found.error) == path


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
    ("raw", "path", "expected", "got"),
    [
        (
            {"schema_version": SCHEMA_VERSION + 1},
            "schema_version",
            naming(SCHEMA_VERSION),
            SCHEMA_VERSION + 1,
        ),
        ({"schema_version": 0}, "schema_version", SCHEMA_VERSION, 0),
        ({"schema_version": "1"}, "schema_version", ANY, '"1"'),
        ({}, "schema_version", None, None),
        ([], "manifest", ANY, "[]"),
    ],
    ids=["newer", "older", "mistyped", "missing", "no-object"],
)
def test_a_version_that_cannot_be_read_is_refused(
    raw: Json, path: str, expected: object, got: object
) -> None:
    with refused(BundleError, expected=expected, got=got) as found:
        migrate(raw)
    assert place(found.error) == path
    exported = holds(str(found.error.hint), "sgraf-deploy export")
    assert exported == (got != SCHEMA_VERSION + 1)  # a newer one needs a newer program


def test_a_gap_in_the_migrations_is_refused() -> None:
    with refused(BundleError, expected=3, got=2):
        migrate({"schema_version": 1}, migrations={1: dict}, version=3)


def test_graphs_from_before_there_was_a_gram_matrix_are_read_but_not_mixed() -> None:
    raw = manifest().to_json()
    graphs = raw["members"]["sgr"]["graphs"]["fp32"]
    assert graphs["image_encoder"]["outputs"].pop()["name"] == "region_gram"
    error = error_of(raw, expected=None, got=naming("region_gram"))
    assert place(error) == "members.sgr.graphs.fp32.scorer.inputs.5"
    assert graphs["scorer"]["inputs"].pop()["name"] == "region_gram"
    assert place(error_of(raw)) == PAIR_GRAM
    assert graphs["pair_scorer"]["inputs"].pop(5)["name"] == "region_gram"
    assert Manifest.from_json(raw).to_json() == raw


def test_pair_scorers_from_before_they_took_the_gram_matrix_are_read() -> None:
    raw = manifest().to_json()
    inputs = raw["members"]["sgr"]["graphs"]["fp32"]["pair_scorer"]["inputs"]
    assert inputs.pop(5)["name"] == "region_gram"
    assert Manifest.from_json(raw).to_json() == raw
