"""Tables of logits by member: such as trained models give, and such as rounding decides."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from sgraf_deploy.engines import bounds

AWKWARD = (0.0, 1.0, -1.0, 30.0, -30.0, 88.5, -1e-8, 0.5, 3.0)


@st.composite
def awkward(draw: st.DrawFn, members: tuple[str, ...], most: int = 7) -> tuple[dict[str, Any], int]:
    """Tables of few values, of which some are equal, at bounds, or the next float to one."""
    images, per_image = draw(st.integers(1, most)), draw(st.integers(1, 3))
    shape = images, images * per_image
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.array(draw(st.lists(st.sampled_from(AWKWARD), min_size=1, max_size=5)), np.float32)
    tables = {name: rng.choice(values, shape) for name in members}
    kind = draw(st.sampled_from(["few values", "equal members", "normal", "at a bound"]))
    if kind == "equal members":
        tables = dict.fromkeys(members, tables[members[0]])
    elif kind != "few values":
        tables = {name: rng.normal(0, 3, shape).astype(np.float32) for name in members}
    if kind == "at a bound":  # The ground truths lie at the others' bounds, or an ulp beside.
        lower, upper = bounds.Rest([bounds.ANY] * (len(members) - 1)).bounds([tables["saf"]])
        columns = np.arange(shape[1])
        ends = np.stack([lower, upper])[rng.integers(0, 2), rng.integers(0, images), columns]
        ends = rng.choice([ends, np.nextafter(ends, np.inf), np.nextafter(ends, -np.inf)])
        for name in members:
            tables[name][columns // per_image, columns] = ends.astype(np.float32)
    return tables, per_image


def trained_like(images: int = 40, per_image: int = 5, members: int = 2) -> dict[str, Any]:
    """Logits of which the ground truths' are high in all members, and the others' low."""
    rng, columns = np.random.default_rng(6), np.arange(images * per_image)
    common = rng.normal(-3, 1.5, (images, len(columns)))
    common[columns // per_image, columns] += 4
    return {
        name: (common + rng.normal(0, 0.3, common.shape)).astype(np.float32)
        for name in ("sgr", "saf", "sgr-2")[:members]
    }
