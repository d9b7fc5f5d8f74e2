"""The only mapping between the state-dict keys of the authors' checkpoints and our names.

A checkpoint's `model` is a list of three state dicts, called parts here. The mapping concerns only
names and passes any values through, so it needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""The authors' option -> the field of our config that it declares."""

NORM_OPTIONS = {"no_imgnorm": "image_norm", "no_txtnorm": "text_norm"}
"""The authors' option -> the field of our config that it negates."""

MOST_NUMBERED = 100
"""The largest number of steps or layers; the highest number in the keys gives the count."""

_NUMBER = "0|[1-9][0-9]?"
_LINEAR = r"weight|bias"
_NORM = r"weight|bias|running_mean|running_var|num_batches_tracked"
_GRU = rf"(?:weight|bias)_(?:ih|hh)_l(?:{_NUMBER})(?:_reverse)?"

# Part, the authors' prefix, our prefix, and what may follow either; `{}` is a step's number.
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


_BARE = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.(?!$)")
"""The prefixes that DataParallel and torch.compile add to a key, or to that of a submodule."""

ONLY_SGRAF = "only checkpoints of SGRAF (SGR or SAF) can be read"

_TWO = 2
_LISTED = 8
_LONGEST = 100
_NO_SIMILARITY = ": there is no similarity encoder"
_SIBLINGS = tuple(
    (re.compile(rf"(?:^|\.)(?:{pattern})"), f"these are keys of {model}")
    for pattern, model in (
        (r"bert\.|backbone\.|\w+\.word_embeddings|embeddings\.", "a BERT text encoder"),
        (r"Rs_GCN_\d", "VSRN"),
        (r"gpool\.", "VSE\u221e"),
        (r"(?i:rar_modules|rcr_modules)", "RCAR"),
        (r"transformer\.resblocks|visual\.", "CLIP"),
        (r"cnn\.", "VSE++ with its own CNN"),
        (r"glove|wemb", "word vectors that are stored separately"),
    )
)
"""The beginning of a key, and the published model that has such keys."""

_THEIRS = [(part, _pattern(theirs, leaf), ours) for part, theirs, ours, leaf in _PREFIXES]
_OURS = [(_pattern(ours, leaf), part, theirs) for part, theirs, ours, leaf in _PREFIXES]


def to_weights(parts: Sequence[Mapping[str, A]]) -> dict[str, A]:
    """The values of the three parts by our names; DataParallel's prefix `module.` is removed.

    Raises CheckpointError for keys that no SGRAF model has, and for a key that occurs twice.
    """
    weights: dict[str, A] = {}
    for part, state in zip(PARTS, parts, strict=True):
        names = {key: _name(part, key) for key in state}
        unknown = [key for key, name in names.items() if name is None]
        if unknown:
            raise _unknown(part, unknown, state)
        for key, value in state.items():
            name = names[key] or ""
            if name in weights:
                raise CheckpointError(
                    f"the {part} part has {authors_key(name)[1]} twice",
                    expected="the key either with or without the prefix module.",
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
    """The part and the authors' key of one of our names; CheckpointError for another name."""
    for pattern, part, theirs in _OURS:
        if match := pattern.fullmatch(name):
            return part, _filled(theirs, match)
    raise CheckpointError(f"no SGRAF model has a weight named {name!r}")


def describe(name: str) -> str:
    """The text for one of our names in messages: the part and the authors' key."""
    part, key = authors_key(name)
    return f"{part} part: {key}"


def prefixes(keys: Iterable[str]) -> list[str] | None:
    """The prefix of each part's keys in a single flat dict; None if they are ambiguous."""
    found: dict[str, set[str]] = {part: set() for part in PARTS}
    for key in keys:
        places = {
            (part, key[: len(key) - len(rest)])
            for rest in _tails(key)
            for part in PARTS
            if _name(part, rest) is not None
        }
        longest = max((len(key) - len(prefix) for _, prefix in places), default=0)
        parts = [place for place in places if len(key) - len(place[1]) == longest]
        if len(parts) != 1:
            return None
        found[parts[0][0]].add(parts[0][1])
    if any(len(of_part) != 1 for of_part in found.values()):
        return None
    ordered = [min(found[part]) for part in PARTS]
    clear = all(not a.startswith(b) for a in ordered for b in ordered if a is not b)
    return ordered if clear else None


def part_of(keys: Iterable[str]) -> str | None:
    """The part that has all of these keys; None if there is no such part."""
    listed = list(keys)
    for part in PARTS:
        if listed and all(_name(part, key) is not None for key in listed):
            return part
    return None


def sibling(keys: Iterable[str], parts: int) -> str | None:
    """The other published model that these keys belong to; None if it is not known."""
    listed = list(keys)
    for pattern, model in _SIBLINGS:
        if any(pattern.search(key) for key in listed):
            return model
    bare = {_BARE.sub("", key) for key in listed}
    if parts == _TWO and {"fc.weight", "embed.weight", "rnn.weight_ih_l0"} <= bare:
        return f"its two parts are those of SCAN or VSE++{_NO_SIMILARITY}"
    if parts == _TWO and {"fc.weight", "embed.weight"} <= bare:
        return f"its two parts are an image and a text encoder{_NO_SIMILARITY}"
    return None


def _tails(key: str) -> Iterator[str]:
    """The key, and the rest of it after each of its dots."""
    rest = key
    while rest:
        yield rest
        rest = rest.partition(".")[2]


def _name(part: str, key: str) -> str | None:
    """Our name of a part's key; None for a key that this part never has."""
    bare = _BARE.sub("", key)
    for owner, pattern, ours in _THEIRS:
        if owner == part and (match := pattern.fullmatch(bare)):
            return _filled(ours, match)
    return None


def _unknown(part: str, keys: Sequence[str], state: Mapping[str, object]) -> CheckpointError:
    """The error for keys that this part never has."""
    listed = [
        f"{key[:_LONGEST]!r}" + (f" {tuple(shape)}" if shape is not None else "")
        for key in keys[:_LISTED]
        for shape in [getattr(state[key], "shape", None)]
    ]
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    noun = "tensor" if len(keys) == 1 else "tensors"
    known = sibling(keys, len(PARTS))
    hint = f"{known}; {ONLY_SGRAF}" if known else ONLY_SGRAF
    if other := part_of(keys):
        hint = f"they belong to the {other} part: the order is {', '.join(PARTS)}"
    return CheckpointError(
        f"the {part} part has the unknown {noun} {', '.join(listed)}{more}",
        expected="the keys of an SGRAF model",
        hint=hint,
    )


def _filled(prefix: str, match: re.Match[str]) -> str:
    return f"{prefix.format(match.groupdict().get('step'))}.{match['leaf']}"
