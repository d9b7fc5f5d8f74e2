"""Synthetic scenes, their captions and their regions: distinct, true, reproducible."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.closeness import assert_close
from support.refusals import refused

from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.data.synthetic.captions import ADJECTIVES, NOUNS, RELATIONS, SIDES, captions_of
from sgraf_deploy.data.synthetic.regions import NORM
from sgraf_deploy.data.synthetic.scenes import (
    COLOURS,
    INVERSE,
    MATERIALS,
    SHAPES,
    SIZES,
    SPLITS,
    Scene,
    SceneObject,
    make_scenes,
)
from sgraf_deploy.data.synthetic.splits import SceneOptions, scene_split, write_splits
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.errors import InputError

COUNT = 300


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {split: make_scenes(split, COUNT, 0) for split in SPLITS}


def key(scene: Scene) -> tuple[SceneObject, ...]:
    return tuple(sorted(scene.objects))


def test_no_scene_comes_twice_in_any_split(scenes: dict[str, list[Scene]]) -> None:
    keys = {key(scene) for split in scenes.values() for scene in split}
    assert len(keys) == COUNT * len(SPLITS)
    for split, found in scenes.items():
        assert {scene.split for scene in found} == {split}


def test_no_two_scenes_of_a_split_have_the_same_words() -> None:
    """Cells are not told, so that scenes that differ can sound alike: first the 1,027th of test."""
    words = {str(scene) for scene in make_scenes("test", 1100, 0)}
    assert len(words) == 1100


def test_more_scenes_begin_with_the_same(scenes: dict[str, list[Scene]]) -> None:
    assert make_scenes("test", 50, 0) == scenes["test"][:50]
    assert make_scenes("test", 50, 1) != scenes["test"][:50]


def test_objects_differ_and_have_cells_of_their_own(scenes: dict[str, list[Scene]]) -> None:
    sizes = set()
    for scene in scenes["train"]:
        sizes.add(len(scene.objects))
        assert len({(one.shape, one.colour) for one in scene.objects}) == len(scene.objects)
        assert len({(one.column, one.row) for one in scene.objects}) == len(scene.objects)
    assert sizes == {2, 3, 4}


@pytest.mark.parametrize(
    ("column", "row", "relation"),
    [(0, 1, "left"), (3, 1, "right"), (2, 0, "above"), (1, 2, "left"), (2, 2, "below")],
)
def test_relations_follow_from_places(column: int, row: int, relation: str) -> None:
    there, here = SceneObject(0, 0, 0, 0, 2, 1), SceneObject(1, 1, 1, 1, column, row)
    assert here.relation(there) == relation
    assert there.relation(here) == INVERSE[here.relation(there)]


def test_a_scene_in_words() -> None:
    scene = Scene((SceneObject(0, 0, 0, 0, 0, 0), SceneObject(1, 1, 1, 1, 2, 0)))
    assert str(scene) == "small red metal ball left of large blue wooden cube"


def described(scene: Scene, phrase: str) -> list[SceneObject]:
    """The objects that a noun phrase may mean."""
    words = set(phrase.split())
    return [
        one
        for one in scene.objects
        if words & set(NOUNS[SHAPES[one.shape]])
        and words <= {*NOUNS[SHAPES[one.shape]], *true_adjectives(one)}
    ]


def true_adjectives(one: SceneObject) -> set[str]:
    sized, made = ADJECTIVES[SIZES[one.size]], ADJECTIVES[MATERIALS[one.material]]
    return {COLOURS[one.colour], *sized, *made}


ALL_NOUNS = "|".join(noun for nouns in NOUNS.values() for noun in nouns)
NOUN_PHRASE = re.compile(rf"\b(an?) ((?:[a-z]+ )*?(?:{ALL_NOUNS}))\b")


def test_captions_name_what_is_there_and_where(scenes: dict[str, list[Scene]]) -> None:
    rng = np.random.default_rng(5)
    told = 0
    for scene in scenes["train"]:
        captions = captions_of(scene, rng)
        assert len(captions) == 5
        for caption in captions:
            phrases = NOUN_PHRASE.findall(caption.replace("a picture of ", ""))
            assert len(phrases) >= 2, caption
            for article, phrase in phrases:
                assert (article == "an") == (phrase[0] in "aeiou"), caption
                assert described(scene, phrase), caption
            found = relation_in(caption)
            if found is not None:
                told += 1
                assert any(
                    one.relation(other) == found[0]
                    for one in described(scene, found[1])
                    for other in described(scene, found[2])
                ), caption
    assert told > 500


def relation_in(caption: str) -> tuple[str, str, str] | None:
    """The relation of `A relation B` captions, and their noun phrases."""
    for relation, phrases in RELATIONS.items():
        for phrase in sorted(phrases, key=len, reverse=True):
            match = re.fullmatch(
                rf"(?:there is |a picture of )?an? ([a-z ]+?)(?: is| can be seen)? {phrase} "
                rf"an? ([a-z ]+?)",
                caption,
            )
            if match and not re.search(r"\b(?:that|and|of)\b", f"{match[1]} {match[2]}"):
                return relation, match[1], match[2]
    return None


def test_captions_read_and_tokenise_well(scenes: dict[str, list[Scene]]) -> None:
    rng, tokenizer = np.random.default_rng(6), Tokenizer()
    words: set[str] = set()
    for scene in scenes["dev"]:
        for caption in captions_of(scene, rng):
            assert re.fullmatch(r"[a-z]+(?:,? [a-z]+)*", caption), caption
            tokens = tokenizer.tokenize(caption)
            assert 5 <= len(tokens) <= 25
            words.update(tokens)
    synonyms = {word for group in (*NOUNS.values(), *ADJECTIVES.values()) for word in group}
    assert synonyms <= words
    assert {word for side in SIDES.values() for phrase in side for word in phrase.split()} <= words


SMALL = SceneOptions(img_dim=24, regions=30)


def test_regions_have_their_shape_and_norm() -> None:
    regions = scene_split(SMALL, "dev", 40).regions
    assert regions.shape == (40, 30, 24)
    assert regions.dtype == np.float16
    norms = np.linalg.norm(regions.astype(float), axis=2)
    assert_close(norms, np.full_like(norms, NORM), depth=1, dtype=np.float16)


def test_a_split_does_not_depend_on_others_or_on_its_size() -> None:
    short, long = scene_split(SMALL, "test", 10), scene_split(SMALL, "test", 30)
    assert long.captions[:50] == short.captions
    assert long.ids is not None
    assert long.ids[:10] == short.ids
    assert len(set(long.ids)) == 30


def test_a_seed_gives_the_same_data() -> None:
    one, again = scene_split(SMALL, "dev", 20), scene_split(SMALL, "dev", 20)
    assert one.captions == again.captions
    assert np.array_equal(one.regions, again.regions)
    other = scene_split(replace(SMALL, seed=1), "dev", 20)
    assert other.captions != one.captions


def test_the_words_of_seed_0_are_frozen() -> None:
    split = scene_split(SceneOptions(), "test", 50)
    text = "\n".join([*split.captions, *(split.ids or [])]).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == "65050f2738369264"


def test_a_written_folder_is_the_split(tmp_path: Path) -> None:
    write_splits(tmp_path, SMALL, {"dev": 12, "test": 9})
    for name, count in (("dev", 12), ("test", 9)):
        expected, found = scene_split(SMALL, name, count), open_precomp(tmp_path, name)
        assert np.array_equal(found.regions, expected.regions)
        assert found.captions == expected.captions
        assert found.ids == expected.ids
        assert np.array_equal(found.image_of_caption, expected.image_of_caption)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("seed", -1), ("img_dim", 7), ("regions", 0)),
        *(("noise", value) for value in (-0.1, 1001.0, 1e20, float("inf"), float("nan"))),
    ],
)
def test_options_that_make_no_data_are_refused(field: str, value: float) -> None:
    with refused(InputError, field.replace("_", " "), got=value):
        replace(SMALL, **{field: value})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(("split", "count"), [("val", 5), ("test", 0), ("test", 10**6)])
def test_splits_and_counts_out_of_range_are_refused(split: str, count: int) -> None:
    names, got = ([], split) if split == "val" else ([split], count)
    with refused(InputError, *names, got=got):
        scene_split(SMALL, split, count)
