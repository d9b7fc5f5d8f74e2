"""The mapping between the authors' state-dict keys and our names."""

from __future__ import annotations

import dataclasses

import pytest
from support.refusals import naming, refused

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.infer import check_shapes, expected_shapes, infer_config
from sgraf_deploy.model.keys import authors_key, describe, to_parts, to_weights

SGR = ModelConfig("SGR", 12, 5, 8, 6, 7, 11, 1, True, 2, True, True)
SAF = dataclasses.replace(SGR, module="SAF", sgr_steps=0)

CONFIGS = {
    "sgr": SGR,
    "saf": SAF,
    "sgr-2-layers": dataclasses.replace(SGR, num_layers=2),
    "saf-unidirectional-3-layers": dataclasses.replace(SAF, num_layers=3, bidirectional=False),
    "sgr-12-steps": dataclasses.replace(SGR, sgr_steps=12),
}

PAIRS = {
    "image_encoder.projection.weight": ("image", "fc.weight"),
    "text_encoder.embedding.weight": ("text", "embed.weight"),
    "text_encoder.gru.weight_ih_l0": ("text", "cap_rnn.weight_ih_l0"),
    "text_encoder.gru.bias_hh_l1_reverse": ("text", "cap_rnn.bias_hh_l1_reverse"),
    "image_global.local.bias": ("similarity", "v_global_w.embedding_local.0.bias"),
    "image_global.local_norm.running_var": (
        "similarity",
        "v_global_w.embedding_local.1.running_var",
    ),
    "image_global.mean.weight": ("similarity", "v_global_w.embedding_global.0.weight"),
    "image_global.mean_norm.num_batches_tracked": (
        "similarity",
        "v_global_w.embedding_global.1.num_batches_tracked",
    ),
    "image_global.attention.weight": ("similarity", "v_global_w.embedding_common.0.weight"),
    "text_global.local.weight": ("similarity", "t_global_w.embedding_local.0.weight"),
    "text_global.mean.bias": ("similarity", "t_global_w.embedding_global.0.bias"),
    "text_global.attention.bias": ("similarity", "t_global_w.embedding_common.0.bias"),
    "local_alignment.weight": ("similarity", "sim_tranloc_w.weight"),
    "global_alignment.weight": ("similarity", "sim_tranglo_w.weight"),
    "similarity.bias": ("similarity", "sim_eval_w.bias"),
    "reasoning.0.query.weight": ("similarity", "SGR_module.0.graph_query_w.weight"),
    "reasoning.1.key.bias": ("similarity", "SGR_module.1.graph_key_w.bias"),
    "reasoning.11.update.weight": ("similarity", "SGR_module.11.sim_graph_w.weight"),
    "filtration.attention.weight": ("similarity", "SAF_module.attn_sim_w.weight"),
    "filtration.norm.running_mean": ("similarity", "SAF_module.bn.running_mean"),
}


def in_parts(part: str, **values: int) -> list[dict[str, int]]:
    return [values if name == part else {} for name in ("image", "text", "similarity")]


@pytest.mark.parametrize(("name", "place"), PAIRS.items(), ids=PAIRS)
def test_a_name_and_its_key_lead_to_each_other(name: str, place: tuple[str, str]) -> None:
    part, key = place
    assert authors_key(name) == place
    assert to_weights(in_parts(part, **{key: 3})) == {name: 3}
    assert list(to_parts({name: 3})) == in_parts(part, **{key: 3})
    assert describe(name) == f"{part} part: {key}"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_expected_weight_survives_both_directions(config: ModelConfig) -> None:
    shapes = expected_shapes(config)
    parts = to_parts(shapes)
    assert sum(map(len, parts)) == len(shapes)
    assert to_weights(parts) == shapes


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_shapes_tell_the_config(config: ModelConfig) -> None:
    shapes = expected_shapes(config)
    assert infer_config(shapes) == config
    check_shapes(shapes, config)


@pytest.mark.parametrize("prefix", ["module.", "module.module."])
def test_prefixes_of_data_parallel_are_stripped(prefix: str) -> None:
    parts = in_parts("text", **{f"{prefix}embed.weight": 1, "cap_rnn.bias_ih_l0": 2})
    assert to_weights(parts) == {
        "text_encoder.embedding.weight": 1,
        "text_encoder.gru.bias_ih_l0": 2,
    }


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("image", "cnn.fc.weight"),
        ("image", "fc.running_mean"),
        ("image", "fc.weight.module.weight"),
        ("image", "embed.weight"),
        ("text", "embed.bias"),
        ("text", "cap_rnn.weight_ih_l0_forward"),
        ("text", "cap_rnn.weight_ih_l100"),
        ("text", "cap_rnn.weight_ih_l00"),
        ("similarity", "fc.weight"),
        ("similarity", "v_global_wXembedding_local.0.weight"),
        ("similarity", "SGR_module.x.graph_query_w.weight"),
        ("similarity", "SGR_module.100.graph_query_w.weight"),
        ("similarity", "SGR_module.1.graph_query_w.weight\n"),
        ("similarity", "SAF_module.bn"),
        ("similarity", ""),
    ],
)
def test_an_unknown_key_is_named_with_its_part(part: str, key: str) -> None:
    with refused(CheckpointError, part, repr(key), got=None):
        to_weights(in_parts(part, **{key: 1}))


def test_a_key_with_and_without_prefix_is_refused() -> None:
    parts = in_parts("image", **{"fc.weight": 1, "module.fc.weight": 2})
    with refused(CheckpointError, "image", "fc.weight", expected=naming("module.")):
        to_weights(parts)


def test_an_unknown_name_has_no_key() -> None:
    with refused(CheckpointError, "fc.weight"):
        to_parts({"fc.weight": 1})
