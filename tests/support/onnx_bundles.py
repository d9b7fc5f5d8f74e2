"""Whole small bundles whose ONNX graphs hold the fake engine's model, without any export."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper
from support.fake_engine import fake_weights

from sgraf_deploy.bundle.bundle import Bundle, hash_file, write_manifest
from sgraf_deploy.bundle.manifest import SCHEMA_VERSION, CheckpointInfo, GraphFile, Manifest, Member
from sgraf_deploy.config import (
    GRAPHS,
    GraphName,
    ModelConfig,
    Module,
    Precision,
    TensorSpec,
    describe_modules,
    member_names,
    signature,
)
from sgraf_deploy.data.tokenizer import UNTRAINED
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary

WORDS = (*SPECIAL_WORDS, "a", "dog", "cat", "runs", "sleeps", "on", "the", "beach", "red", "sofa")
OPSET = 18

_TYPES = {"float32": "float", "float16": "float16", "int32": "int32"}

_LOAD = """
  v = Cast <to = 1> (region_embeddings)
  g = Cast <to = 1> (image_global)
  w = Cast <to = 1> (word_embeddings)
  h = Cast <to = 1> (text_global)
  n = Cast <to = 1> (lengths)
  image = ReduceSum <keepdims = 0> (v, one)
"""

_MASK = """
  shape = Shape <start = 1, end = 2> ({words})
  size = Squeeze (shape)
  steps = Range (zero_index, size, one_index)
  places = Cast <to = 1> (steps)
  lengths_float = Cast <to = 1> (lengths)
  column = Unsqueeze (lengths_float, one)
  real = Less (places, column)
  mask = Cast <to = 1> (real)
"""

_GRAM = """
  upright = Transpose <perm = [0, 2, 1]> (v)
  region_gram = MatMul (v, upright)
"""

_WEIGHTED = """
  tenths = Mul (places, tenth)
  by_place = Add (tenths, unit)
  weight = Mul (mask, by_place)
"""

BODIES: dict[GraphName, str] = {
    "image_encoder": """
  projected = MatMul (regions, image)
  v = Tanh (projected)
  g = ReduceMean <keepdims = 0> (v, one)
  region_embeddings = Cast <to = {stored}> (v)
  image_global = Cast <to = {stored}> (g)
{gram}""",
    "text_encoder": _MASK.format(words="token_ids")
    + """
  looked_up = Gather (words_table, token_ids)
  w = Tanh (looked_up)
  mask3 = Unsqueeze (mask, two)
  kept = Mul (w, mask3)
  total = ReduceSum <keepdims = 0> (kept, one)
  h = Div (total, column)
  word_embeddings = Cast <to = {stored}> (w)
  text_global = Cast <to = {stored}> (h)
""",
    "scorer": _LOAD
    + _MASK.format(words="word_embeddings")
    + _WEIGHTED
    + """
  turned = Transpose <perm = [0, 2, 1]> (w)
  raw = MatMul (image, turned)
  attended = Tanh (raw)
  weight3 = Unsqueeze (weight, one)
  weighted = Mul (attended, weight3)
  total = ReduceSum <keepdims = 0> (weighted, two)
  by_caption = Div (total, column)
  local = Transpose <perm = [1, 0]> (by_caption)
  turned_global = Transpose <perm = [1, 0]> (h)
  dots = MatMul (g, turned_global)
  overall = Add (dots, dots)
  logits = Add (local, overall)
""",
    "pair_scorer": _LOAD
    + _MASK.format(words="word_embeddings")
    + _WEIGHTED
    + """
  images_of = Gather (image, image_index)
  words_of = Gather (w, caption_index)
  upright = Unsqueeze (images_of, two)
  raw3 = MatMul (words_of, upright)
  raw = Squeeze (raw3, two)
  attended = Tanh (raw)
  weight_of = Gather (weight, caption_index)
  weighted = Mul (attended, weight_of)
  total = ReduceSum <keepdims = 0> (weighted, one)
  lengths_of = Gather (lengths_float, caption_index)
  local = Div (total, lengths_of)
  globals_of = Gather (g, image_index)
  texts_of = Gather (h, caption_index)
  products = Mul (globals_of, texts_of)
  dots = ReduceSum <keepdims = 0> (products, one)
  overall = Add (dots, dots)
  logits = Add (local, overall)
""",
}


def small_config(module: Module = "SGR", *, seed: int = 0) -> ModelConfig:
    """Small dimensions, all different; `seed` changes those that members need not share."""
    return ModelConfig(
        module=module,
        img_dim=6,
        regions=4,
        embed=8 + seed,
        sim_dim=3,
        word_dim=5,
        vocab_size=len(WORDS),
        num_layers=1,
        bidirectional=True,
        sgr_steps=3 if module == "SGR" else 0,
        image_norm=True,
        text_norm=True,
    )


def write_bundle(
    folder: Path,
    *modules: Module,
    precisions: Sequence[Precision] = ("fp32", "fp16"),
    vocabulary: bool = True,
    name: str = "small",
    gram: Collection[GraphName] = GRAPHS,
) -> Bundle:
    """Write a bundle whose graphs compute what the fake engine does; `name` makes it another.

    Its members are of `modules`, one SGR and one SAF if there are none. `gram` are the graphs that
    have a Gram matrix: none or not all, as they once were written.
    """
    modules = modules or ("SGR", "SAF")
    members = {
        name: _write_member(folder, name, small_config(module, seed=seed), precisions, gram)
        for seed, (name, module) in enumerate(zip(member_names(modules), modules, strict=True))
    }
    folder.mkdir(exist_ok=True)
    if vocabulary:
        Vocabulary(WORDS).save(folder / "vocab.json")
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        module=describe_modules(modules),
        members=members,
        combined={},
        explain={},
        tokenizer=UNTRAINED if vocabulary else None,
        vocabulary=hash_file(folder / "vocab.json", relative_to=folder) if vocabulary else None,
        region_statistics=None,
        extractor=None,
        gate=None,
        parity={},
        tools={"name": name},
    )
    write_manifest(folder, manifest)
    return Bundle.open(folder)


def write_graph(
    path: Path,
    graph: GraphName,
    config: ModelConfig,
    precision: Precision,
    *,
    member: str | None = None,
    gram: bool = True,
) -> None:
    """Write one graph of the fake engine's model of a member, by default the module's first."""
    spec = signature(graph, config, precision, gram=gram)
    weights = fake_weights(member or config.module.lower(), config)
    stored = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    products = _GRAM if any(output.name == "region_gram" for output in spec.outputs) else ""
    body = BODIES[graph].format(stored=stored, gram=products)
    inputs = ", ".join(map(_declared, spec.inputs))
    outputs = ", ".join(map(_declared, spec.outputs))
    constants = (
        "<int64[1] one = {1}, int64[1] two = {2}, int64 zero_index = {0}, int64 one_index = {1}, "
        "float tenth = {0.1}, float unit = {1.0}>"
    )
    text = (
        f'<ir_version: 9, opset_import: ["": {OPSET}]> '
        f"{graph} ({inputs}) => ({outputs}) {constants} {{{body}}}"
    )
    model = onnx.parser.parse_model(text)
    for name, array in (("image", weights["image"]), ("words_table", weights["words"])):
        if name in body and graph.endswith("encoder"):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def _write_member(
    folder: Path,
    member: str,
    config: ModelConfig,
    precisions: Sequence[Precision],
    gram: Collection[GraphName],
) -> Member:
    graphs: dict[Precision, dict[GraphName, GraphFile]] = {}
    for precision in precisions:
        graphs[precision] = {}
        for name in GRAPHS:
            path = folder / member / precision / f"{name}.onnx"
            write_graph(path, name, config, precision, member=member, gram=name in gram)
            ref = hash_file(path, relative_to=folder)
            spec = signature(name, config, precision, gram=name in gram)
            graphs[precision][name] = GraphFile(ref, OPSET, spec)
    checkpoint = CheckpointInfo("c.pth", sha256(member.encode()).hexdigest(), None, None, None)
    return Member(config, checkpoint, sha256(b"images").hexdigest(), graphs, None)


def _declared(spec: TensorSpec) -> str:
    return f"{_TYPES[spec.dtype]}[{','.join(map(str, spec.axes))}] {spec.name}"
