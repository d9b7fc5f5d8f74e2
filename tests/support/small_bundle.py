"""Manifests and bundles of a few bytes, whose graphs no engine could open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.bundle import write_manifest
from sgraf_deploy.bundle.manifest import (
    SCHEMA_VERSION,
    CheckpointInfo,
    ExtractorFiles,
    FileRef,
    GraphFile,
    Manifest,
    Member,
)
from sgraf_deploy.config import (
    GRAPHS,
    ModelConfig,
    Module,
    Precision,
    combined_signature,
    describe_modules,
    signature,
)


def content_of(file: str, content: str) -> bytes:
    text = f"{content} {file}".encode()
    # Of a graph the name of the program that made it, field 2 of an ONNX file.
    return b"\x12" + bytes([len(text)]) + text if file.endswith(".onnx") else text


def ref(file: str, content: str) -> FileRef:
    data = content_of(file, content)
    return FileRef(file, sha256(data).hexdigest(), len(data))


def config(module: Module, **changes: Any) -> ModelConfig:
    made = ModelConfig(
        module=module,
        img_dim=5,
        regions=3,
        embed=8,
        sim_dim=4,
        word_dim=6,
        vocab_size=11,
        num_layers=1,
        bidirectional=True,
        sgr_steps=3 if module == "SGR" else 0,
        image_norm=True,
        text_norm=True,
    )
    return replace(made, **changes)


def member(
    module: Module,
    precisions: tuple[Precision, ...] = ("fp32",),
    content: str = "content",
    **changes: Any,
) -> Member:
    """A member of `config(module, **changes)`."""
    key, shape = module.lower(), config(module, **changes)
    return Member(
        config=shape,
        checkpoint=CheckpointInfo(f"{key}.pth.tar", "ab" * 32, 12, 345.5, "f8k_precomp"),
        image_encoder_fingerprint="cd" * 32,
        graphs={
            precision: {
                name: GraphFile(
                    ref(f"{key}/{precision}/{name}.onnx", content),
                    18,
                    signature(name, shape, precision),
                )
                for name in GRAPHS
            }
            for precision in precisions
        },
        reference=ref(f"reference/{key}.safetensors", content),
    )


def manifest(members: Mapping[str, Member] | None = None, content: str = "content") -> Manifest:
    """A manifest of `members`, by default one of SGR; its `tools` say what `content` is."""
    members = {"sgr": member("SGR", content=content)} if members is None else members
    return Manifest(
        schema_version=SCHEMA_VERSION,
        module=describe_modules(each.config.module for each in members.values()),
        members=members,
        combined={},
        explain={},
        tokenizer="default",
        vocabulary=ref("vocab.json", content),
        region_statistics={"mean": 0.5, "norm": [1.0, 2.0]},
        extractor=ExtractorFiles(
            identity="ef" * 32,
            recipe=ref("extractor/extractor.json", content),
            files={
                "backbone": ref("extractor/backbone.onnx", content),
                "projection": ref("extractor/projection.npz", content),
            },
        ),
        gate=ref("reference/gate.npz", content),
        parity={"fp32": {"largest": 1e-6}},
        tools={"content": content},
    )


def with_combined(full: Manifest, *precisions: Precision) -> Manifest:
    """The same with graphs of all members."""
    shape = next(iter(full.members.values())).config
    content = full.tools["content"]
    combined = {
        precision: GraphFile(
            ref(f"combined/{precision}/combined.onnx", content), 18, combined_signature(shape)
        )
        for precision in precisions
    }
    return replace(full, combined=combined)


def without_extras(full: Manifest) -> Manifest:
    """The same without all that an export may leave out."""
    return replace(
        full,
        members={key: replace(made, reference=None) for key, made in full.members.items()},
        tokenizer=None,
        vocabulary=None,
        region_statistics=None,
        extractor=None,
        gate=None,
    )


def fill(folder: Path, made: Manifest) -> Manifest:
    """Write the manifest and all of its files."""
    for file in made.files:
        path = folder / file.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(file.file, made.tools["content"]))
    write_manifest(folder, made)
    return made
