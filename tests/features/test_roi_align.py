"""RoiAlign in numpy against ONNX Runtime's, averaged over the pooled cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sgraf_deploy.features.roi_align import roi_align

KINDS = {"map": TensorProto.FLOAT, "boxes": TensorProto.FLOAT, "pictures": TensorProto.INT64}


def onnx_roi_align(cells: NDArray[Any], boxes: NDArray[Any], pool: int) -> NDArray[Any]:
    """The operator that the definition names: (boxes, channels)."""
    import onnxruntime

    node = helper.make_node(
        "RoiAlign",
        list(KINDS),
        ["pooled"],
        mode="avg",
        sampling_ratio=0,
        output_height=pool,
        output_width=pool,
        coordinate_transformation_mode="half_pixel",
    )
    graph = helper.make_graph(
        [node],
        "roi-align",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in KINDS.items()],
        [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    inputs = {
        "map": np.ascontiguousarray(cells.transpose(2, 0, 1)[None]),
        "boxes": boxes,
        "pictures": np.zeros(len(boxes), np.int64),
    }
    (pooled,) = session.run(None, inputs)
    mean: NDArray[Any] = pooled.mean(axis=(2, 3))
    return mean


@pytest.mark.parametrize(
    ("rows", "columns", "pool"), [(6, 6, 7), (1, 1, 7), (1, 5, 2), (24, 33, 7), (40, 40, 3)]
)
def test_it_is_the_mean_of_what_onnx_pools(rows: int, columns: int, pool: int) -> None:
    rng = np.random.default_rng(rows)
    cells = rng.standard_normal((rows, columns, 5)).astype(np.float32)
    corners = np.sort(rng.uniform(0, 1, (30, 2, 2)) * [columns, rows], axis=1).reshape(30, 4)
    boxes = np.concatenate([[[0, 0, columns, rows]], corners]).astype(np.float32)
    found = roi_align(cells, boxes, pool)
    assert found.shape == (31, 5)
    assert found.dtype == np.float32
    # Values of about 1, summed over up to 40 × 40 cells with weights of sum 1.
    np.testing.assert_allclose(found, onnx_roi_align(cells, boxes, pool), rtol=0, atol=1e-5)


def test_equal_boxes_give_equal_bytes_in_any_company() -> None:
    rng = np.random.default_rng(0)
    cells = rng.standard_normal((7, 9, 64)).astype(np.float32)
    corners = np.sort(rng.uniform(0, 7, (20, 2, 2)), axis=1).reshape(20, 4).astype(np.float32)
    together = roi_align(cells, corners, 7)
    alone = np.concatenate([roi_align(cells, corner[None], 7) for corner in corners])
    assert together.tobytes() == alone.tobytes()


def test_a_box_of_one_cell_is_mostly_that_cell() -> None:
    cells = np.zeros((3, 3, 1), np.float32)
    cells[1, 2] = 1
    boxes = np.array([[2, 1, 3, 2], [0, 0, 1, 1]], np.float32)
    (inside,), (outside,) = roi_align(cells, boxes, 7)
    assert inside > 0.5
    assert outside == 0
