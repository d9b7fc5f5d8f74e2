"""Copies of bundles with one graph changed, and its hash with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx

from sgraf_deploy.bundle.bundle import Bundle, hash_file, write_manifest
from sgraf_deploy.config import GraphName

Change = Callable[[onnx.ModelProto], None]


def changed(bundle: Bundle, folder: Path, member: str, graph: GraphName, change: Change) -> Bundle:
    """A copy of a bundle with a member's fp32 graph changed, which passes for intact."""
    shutil.copytree(bundle.path, folder)
    found = bundle.manifest.members[member]
    file = found.graphs["fp32"][graph]
    path = folder / file.ref.file
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    graphs = {**found.graphs["fp32"], graph: replace(file, ref=hash_file(path, relative_to=folder))}
    members = {
        **bundle.manifest.members,
        member: replace(found, graphs={**found.graphs, "fp32": graphs}),
    }
    write_manifest(folder, replace(bundle.manifest, members=members))
    return Bundle.open(folder)


def changed_members(
    bundle: Bundle, folder: Path, *, fingerprint: str | None = None, image_norm: bool | None = None
) -> Bundle:
    """A copy of a bundle whose manifest says something else of every member's image encoder."""
    shutil.copytree(bundle.path, folder)
    members = {}
    for name, member in bundle.manifest.members.items():
        norm = member.config.image_norm if image_norm is None else image_norm
        members[name] = replace(
            member,
            config=replace(member.config, image_norm=norm),
            image_encoder_fingerprint=fingerprint or member.image_encoder_fingerprint,
        )
    write_manifest(folder, replace(bundle.manifest, members=members))
    return Bundle.open(folder)
