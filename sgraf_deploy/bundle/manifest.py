"""What a bundle's `manifest.json` says, as frozen types; reading it is strict.

A missing, unknown or mistyped field is a BundleError that names its path in the JSON, for
example `members.sgr.graphs.fp32.scorer.sha256`. Nothing has a default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import Any

from sgraf_deploy.config import (
    GRAPHS,
    MODULES,
    PRECISIONS,
    GraphName,
    GraphSignature,
    ModelConfig,
    Precision,
    TensorSpec,
    combined_signature,
    describe_modules,
    explain_signature,
    member_names,
    signature,
)
from sgraf_deploy.errors import BundleError, InputError
from sgraf_deploy.schema import INLINE, Document, decode, encode, parse

SCHEMA_VERSION = 5

MANIFEST = "manifest.json"
"""The file that makes a folder a bundle."""

PLANS_FOLDER = "engines"
"""The folder of compiled TensorRT plans: each has a sidecar of its own, and they are no part of the
bundle's identity."""

EXPORT_AGAIN = "export the bundle again with `sgraf-deploy export --force`"
"""The hint for whatever is wrong with a bundle."""

DOCUMENT = Document("manifest", BundleError, EXPORT_AGAIN, most_bytes=16 * 2**20)

_RESERVED = (MANIFEST, PLANS_FOLDER)
_NOT_PLAIN = ("\\", ":", "\0")
"""What separates folders, drives and streams on Windows, and what ends a path everywhere."""

EXTRACTOR_FOLDER = "extractor"
"""The folder of what makes regions of photographs."""

EXTRACTOR_FILES = ("backbone", "detector", "projection")
"""What the files of an extractor are called, besides its recipe."""

_SHARED = ("vocab_size", "regions", "img_dim")
"""What the members of an ensemble must agree in: they read the same images and words."""


@dataclass(frozen=True)
class FileRef:
    """A file of the bundle: its relative POSIX path, sha256 and size in bytes.

    Raises BundleError for a path that could lead out of the bundle or to what is not hashed.
    """

    file: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        path = PurePosixPath(self.file)
        outside = path.is_absolute() or ".." in path.parts or not path.parts
        if outside or str(path) != self.file or any(one in self.file for one in _NOT_PLAIN):
            raise _wrong("file", "a plain relative path inside the bundle", self.file)
        if path.parts[0] in _RESERVED:
            raise _wrong("file", f"anything but {' and '.join(_RESERVED)}", self.file)
        _check_sha256(self.sha256)
        if self.bytes < 0:
            raise _wrong("bytes", "a size", self.bytes)


@dataclass(frozen=True)
class GraphFile:
    """One ONNX graph in one precision, a member's or that of all members."""

    ref: FileRef = field(metadata=INLINE)
    opset: int
    signature: GraphSignature = field(metadata=INLINE)


@dataclass(frozen=True)
class CheckpointInfo:
    """The checkpoint that a member was exported from; `file` is its name only."""

    file: str
    sha256: str
    epoch: int | None
    best_rsum: float | None
    data_name: str | None

    def __post_init__(self) -> None:
        _check_sha256(self.sha256)


@dataclass(frozen=True)
class Member:
    """One exported checkpoint; `reference` holds its original weights, None if left out."""

    config: ModelConfig
    checkpoint: CheckpointInfo
    image_encoder_fingerprint: str
    graphs: Mapping[Precision, Mapping[GraphName, GraphFile]]
    reference: FileRef | None

    def __post_init__(self) -> None:
        for name, size in vars(self.config).items():
            if type(size) is int and size < (0 if name == "sgr_steps" else 1):
                raise _wrong(f"config.{name}", "a size", size)
        for precision, graphs in self.graphs.items():
            for name in GRAPHS:
                if name not in graphs:
                    raise _missing(f"graphs.{precision}.{name}")
            made = _has_gram(graphs["image_encoder"].signature.outputs)
            for name in GRAPHS:
                # Scorers came to take it earlier than pair scorers.
                gram = made and (name != "pair_scorer" or _has_gram(graphs[name].signature.inputs))
                right = signature(name, self.config, precision, gram=gram)
                _check_signature(f"graphs.{precision}.{name}", right, graphs[name].signature)


@dataclass(frozen=True)
class ExtractorFiles:
    """What makes regions of photographs: the file of its recipe, and the files that this names.

    `identity` is the recipe's sha256 of all that decides the regions, whatever its files are
    called. `files` are called as `EXTRACTOR_FILES` says: a `backbone` always, and a `detector` or a
    `projection` where the recipe has one.
    """

    identity: str
    recipe: FileRef
    files: Mapping[str, FileRef]

    def __post_init__(self) -> None:
        _check_sha256(self.identity, "identity")
        for name in self.files:
            if name not in EXTRACTOR_FILES:
                raise _wrong(f"files.{name} (field name)", " or ".join(EXTRACTOR_FILES), name)
        if "backbone" not in self.files:
            raise _missing("files.backbone")

    @property
    def graphs(self) -> tuple[FileRef, ...]:
        """Those of the files that are ONNX graphs."""
        return tuple(ref for name, ref in self.files.items() if name != "projection")


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle says about itself.

    `members` are called as `config.member_names` says, and `module` is what they make together
    (`config.describe_modules`). `combined` are the graphs of all members, which only an export that
    was asked for them has. `explain` is every member's graph of that name, none in bundles that are
    older than it. `tokenizer` and `vocabulary` are None for a bundle that works on
    token ids; `gate` and the members' `reference` for one without references. `extractor` is None
    for a bundle that takes regions alone. Raises BundleError when the parts contradict each other.
    """

    schema_version: int
    module: str
    members: Mapping[str, Member]
    combined: Mapping[Precision, GraphFile]
    explain: Mapping[str, GraphFile]
    tokenizer: str | None
    vocabulary: FileRef | None
    region_statistics: dict[str, Any] | None
    extractor: ExtractorFiles | None
    gate: FileRef | None
    parity: dict[str, Any]
    tools: dict[str, str]

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise _wrong("schema_version", SCHEMA_VERSION, self.schema_version)
        _check_members(self)
        _check_combined(self)
        _check_explain(self)
        for name, other in (("tokenizer", "vocabulary"), ("vocabulary", "tokenizer")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                raise _wrong(name, f"a value, because {other} has one", None)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that every member has."""
        return tuple(p for p in PRECISIONS if all(p in m.graphs for m in self.members.values()))

    @property
    def vocab_size(self) -> int:
        """The number of token ids of every member."""
        return self._config.vocab_size

    @property
    def regions(self) -> int:
        """The number of regions per image of every member."""
        return self._config.regions

    @property
    def img_dim(self) -> int:
        """The size of one region's features for every member."""
        return self._config.img_dim

    @property
    def _config(self) -> ModelConfig:
        return next(iter(self.members.values())).config

    @property
    def files(self) -> tuple[FileRef, ...]:
        """Every file that the manifest names, each once: the graphs first."""
        references = [member.reference for member in self.members.values()]
        found = [*self.graphs, *references, self.vocabulary, self.gate]
        if self.extractor is not None:
            found += [self.extractor.recipe, *self.extractor.files.values()]
        return tuple(dict.fromkeys(ref for ref in found if ref is not None))

    @property
    def graphs(self) -> tuple[FileRef, ...]:
        """The files of every member's graphs, and of all members', in the order of the JSON."""
        of_all = (*self.combined.values(), *self.explain.values())
        by_precision = [each for member in self.members.values() for each in member.graphs.values()]
        graphs = [graph for graphs in by_precision for graph in graphs.values()]
        return tuple(graph.ref for graph in (*graphs, *of_all))

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `from_json` reads back."""
        encoded: dict[str, Any] = encode(self)
        return encoded

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Read a JSON object of the current schema version; BundleError names what is off."""
        return decode(cls, value, DOCUMENT)


def parse_json(text: bytes | str) -> Any:
    """The JSON value of a manifest; BundleError for what it may not hold, see `schema.parse`."""
    return parse(text, DOCUMENT)


def unshared(configs: Mapping[str, ModelConfig]) -> tuple[str, dict[str, int]] | None:
    """The first dimension that the members of an ensemble must share and do not, by member.

    None if they share all of them: their images, regions and words.
    """
    for name in _SHARED:
        values = {member: getattr(config, name) for member, config in configs.items()}
        if len(set(values.values())) > 1:
            return name, values
    return None


def _check_members(manifest: Manifest) -> None:
    """The members must be called what they are, be what the module says, and fit each other."""
    members = manifest.members
    if not members:
        raise _wrong("members", "at least one", {})
    modules = [member.config.module for member in members.values()]
    for key, module in zip(members, modules, strict=True):
        named = key.partition("-")[0].upper()
        if named in MODULES and named != module:
            raise _wrong(f"members.{key}.config.module", named, module)
    for key in member_names(modules):  # As many as there are members: no other can be left over.
        if key not in members:
            raise _missing(f"members.{key}")
    if manifest.module != describe_modules(modules):
        raise _wrong("module", describe_modules(modules), manifest.module)
    found = unshared({key: member.config for key, member in members.items()})
    if found is not None:
        name, values = found
        raise BundleError(
            f"members.*.config.{name}",
            expected="the same for all members",
            got=values,
            hint="an ensemble needs checkpoints of the same data",
        )
    if not manifest.precisions:
        raise BundleError("members.*.graphs", expected="a precision that every member has")


def _check_combined(manifest: Manifest) -> None:
    """The combined graphs must be in precisions of the members, and take what these take."""
    for precision, graph in manifest.combined.items():
        if precision not in manifest.precisions:
            expected = " or ".join(manifest.precisions)
            raise _wrong(f"combined.{precision} (field name)", expected, precision)
        right = combined_signature(manifest._config)
        _check_signature(f"combined.{precision}", right, graph.signature)


def _check_explain(manifest: Manifest) -> None:
    """Either every member has its graph `explain`, or none has."""
    for name in manifest.explain:
        if name not in manifest.members:
            expected = " or ".join(manifest.members)
            raise _wrong(f"explain.{name} (field name)", expected, name)
    for name, member in manifest.members.items() if manifest.explain else ():
        if name not in manifest.explain:
            raise _missing(f"explain.{name}")
        right = explain_signature(member.config)
        _check_signature(f"explain.{name}", right, manifest.explain[name].signature)


def _has_gram(specs: Iterable[TensorSpec]) -> bool:
    return any(spec.name == "region_gram" for spec in specs)


def _check_signature(path: str, right: GraphSignature, stored: GraphSignature) -> None:
    for side in ("inputs", "outputs"):
        pairs = zip_longest(getattr(right, side), getattr(stored, side))
        for row, (expected, got) in enumerate(pairs):
            if expected != got:
                raise BundleError(
                    f"{path}.{side}.{row}", expected=expected, got=got, hint=EXPORT_AGAIN
                )


def _check_sha256(value: str, name: str = "sha256") -> None:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise _wrong(name, "64 hexadecimal digits in lower case", value)


def _missing(path: str) -> InputError:
    return DOCUMENT.missing(path)


def _wrong(path: str, expected: object, got: object) -> InputError:
    return DOCUMENT.wrong(path, expected, got)
