"""Exported bundles as they were written before pair scorers took the Gram matrix."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx

from sgraf_deploy.bundle.bundle import Bundle, hash_file, write_manifest
from sgraf_deploy.bundle.manifest import GraphFile, Member
from sgraf_deploy.config import ModelConfig, signature
from sgraf_deploy.engines.torch.members import member_weights
from sgraf_deploy.export.onnx_ops import OnnxOps
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import fold


def without_gram_for_pairs(exported: Bundle, folder: Path) -> Bundle:
    """A copy of the bundle, in fp32 alone, whose pair scorers compute the norms of contexts."""
    shutil.copytree(exported.path, folder)
    members: dict[str, Member] = {}
    for name, member in exported.manifest.members.items():
        graphs = dict(member.graphs["fp32"])
        path = folder / graphs["pair_scorer"].ref.file
        spec = signature("pair_scorer", member.config, "fp32", gram=False)
        model = _pair_scorer(exported, name, member.config)
        onnx.save(model, path)
        ref = hash_file(path, relative_to=folder)
        graphs["pair_scorer"] = GraphFile(ref, graphs["pair_scorer"].opset, spec)
        members[name] = replace(member, graphs={"fp32": graphs})
    write_manifest(folder, replace(exported.manifest, members=members))
    return Bundle.open(folder)


def _pair_scorer(exported: Bundle, name: str, config: ModelConfig) -> onnx.ModelProto:
    spec = signature("pair_scorer", config, "fp32", gram=False)
    ops = OnnxOps("fp32")
    model = FoldedModel(fold(config, member_weights(exported, name, ())), ops)
    names = [tensor.name for tensor in spec.inputs]
    logits = model.pair_scorer(Encoded(*names[:-2]), *names[-2:])
    return ops.model("pair_scorer", spec, [logits])
