"""The one mapping between the state-dict keys of the authors' checkpoints and our names.

A checkpoint's `model` is a list of three state dicts, the parts. No torch here: the mapping is
about names and hands the values through, whatever they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from sgraf_deploy.errors import CheckpointError

A = TypeVar("A")

PARTS = ("image", "text", "similarity")

OPTIONS = {
    "img_dim": "img_dim",
    "embed_size": "embed",
    "sim_dim": "sim_dim",
    "word_dim": "word_dim",
    "vocab_size": "vocab_size",
    "num_layers": "num_layers",
    "bi_gru": "bidirectional",
    "sgr_step": "sgr_steps",
    "module_name": "module",
}
"""The authors' option -> the field of our config that it states."""

NORM_OPTIONS = {"no_imgnorm": "image_norm", "no_txtnorm": "text_norm"}
"""The authors' option -> the field of our config that it negates."""

MOST_NUMBERED = 100
"""The most steps or layers: the highest number in the keys says how many there must be."""

_NUMBER = "0|[1-9][0-9]?"
_LINEAR = r"weight|bias"
_NORM = r"weight|bias|running_mean|running_var|num_batches_tracked"
_GRU = rf"(?:weight|bias)_(?:ih|hh)_l(?:{_NUMBER})(?:_reverse)?"

# Part, their prefix, our prefix, and what may follow either. `{}` stands for a step's number.
_PREFIXES = (
    ("image", "fc", "image_encoder.projection", _LINEAR),
    ("text", "embed", "text_encoder.embedding", "weight"),
    ("text", "cap_rnn", "text_encoder.gru", _GRU),
    ("similarity", "v_global_w.embedding_local.0", "image_global.local", _LINEAR),
    ("similarity", "v_global_w.embedding_local.1", "image_global.local_norm", _NORM),
    ("similarity", "v_global_w.embedding_global.0", "image_global.mean", _LINEAR),
    ("similarity", "v_global_w.embedding_global.1", "image_global.mean_norm", _NORM),
    ("similarity", "v_global_w.embedding_common.0", "image_global.attention", _LINEAR),
    ("similarity", "t_global_w.embedding_local.0", "text_global.local", _LINEAR),
    ("similarity", "t_global_w.embedding_global.0", "text_global.mean", _LINEAR),
    ("similarity", "t_global_w.embedding_common.0", "text_global.attention", _LINEAR),
    ("similarity", "sim_tranloc_w", "local_alignment", _LINEAR),
    ("similarity", "sim_tranglo_w", "global_alignment", _LINEAR),
    ("similarity", "sim_eval_w", "similarity", _LINEAR),
    ("similarity", "SGR_module.{}.graph_query_w", "reasoning.{}.query", _LINEAR),
    ("similarity", "SGR_module.{}.graph_key_w", "reasoning.{}.key", _LINEAR),
    ("similarity", "SGR_module.{}.sim_graph_w", "reasoning.{}.update", _LINEAR),
    ("similarity", "SAF_module.attn_sim_w", "filtration.attention", _LINEAR),
    ("similarity", "SAF_module.bn", "filtration.norm", _NORM),
)


def _pattern(prefix: str, leaf: str) -> re.Pattern[str]:
    numbered = re.escape(prefix).replace(re.escape("{}"), rf"(?P<step>{_NUMBER})")
    return re.compile(rf"{numbered}\.(?P<leaf>{leaf})")


_THEIRS = [(part, _pattern(theirs, leaf), ours) for part, theirs, ours, leaf in _PREFIXES]
_OURS = [(_pattern(ours, leaf), part, theirs) for part, theirs, ours, leaf in _PREFIXES]


def to_weights(parts: Sequence[Mapping[str, A]]) -> dict[str, A]:
    """The values of the three parts by our names; `module.` of DataParallel is stripped.

    Raises CheckpointError for a key that no SGRAF model has, or that occurs twice.
    """
    weights: dict[str, A] = {}
    for part, state in zip(PARTS, parts, strict=True):
        for key, value in state.items():
            name = _name(part, key)
            if name in weights:
                raise CheckpointError(
                    f"the {part} part holds {authors_key(name)[1]} twice",
                    expected="it with or without the prefix module.",
                    got="both",
                )
            weights[name] = value
    return weights


def to_parts(weights: Mapping[str, A]) -> tuple[dict[str, A], dict[str, A], dict[str, A]]:
    """The three parts, image, text and similarity, by the authors' keys.

    Raises CheckpointError for a name that no SGRAF model has.
    """
    parts: dict[str, dict[str, A]] = {part: {} for part in PARTS}
    for name, value in weights.items():
        part, key = authors_key(name)
        parts[part][key] = value
    return parts["image"], parts["text"], parts["similarity"]


def authors_key(name: str) -> tuple[str, str]:
    """The part and the authors' key of one of our names; CheckpointError if it is none."""
    for pattern, part, theirs in _OURS:
        if match := pattern.fullmatch(name):
            return part, _filled(theirs, match)
    raise CheckpointError(f"no SGRAF model has a weight named {name!r}")


def describe(name: str) -> str:
    """What a message calls one of our names: the part and the authors' key."""
    part, key = authors_key(name)
    return f"{part} part: {key}"


def _name(part: str, key: str) -> str:
    bare = key
    while bare.startswith("module."):
        bare = bare.removeprefix("module.")
    for owner, pattern, ours in _THEIRS:
        if owner == part and (match := pattern.fullmatch(bare)):
            return _filled(ours, match)
    raise CheckpointError(
        f"the {part} part holds the unknown tensor {key!r}",
        expected="the keys of an SGRAF model",
        mend="only checkpoints of SGRAF (SGR or SAF) can be read",
    )


def _filled(prefix: str, match: re.Match[str]) -> str:
    return f"{prefix.format(match.groupdict().get('step'))}.{match['leaf']}"
