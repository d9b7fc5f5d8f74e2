"""Every kind of tensor that a checkpoint may hold is read for what it says, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.authors_checkpoint import SGR, authors_payload
from support.refusals import check_error, naming
from support.refusing import refusal
from torch import Tensor

from sgraf_deploy.model.checkpoint import read_checkpoint

KEY, NAME = "fc.weight", "image_encoder.projection.weight"

Change = Callable[[Tensor], Tensor]


def conjugated(part: str) -> Change:
    """A view of complex numbers: of the imaginary part the sign is a bit of the tensor."""
    return lambda x: getattr(torch.complex(x, x).conj(), part)


def overlapping(x: Tensor) -> Tensor:
    """Rows that begin one number after each other, as in a table of all windows."""
    return torch.as_strided(torch.arange(float(x.numel() + 9)), x.shape, (1, 1))


READ: dict[str, Change] = {
    "plain": lambda x: x,
    "negative-bit": torch._neg_view,
    "negative-bit-of-a-conjugate": conjugated("imag"),
    "real-part-of-a-conjugate": conjugated("real"),
    "transposed": lambda x: x.t().contiguous().t(),
    "rows-of-a-larger-one": lambda x: torch.cat([x + 1, x])[len(x) :],
    "every-other-column": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "one-row-for-all": lambda x: x[:1].clone().repeat(len(x), 1)[:1].expand(x.shape),
    "overlapping": overlapping,
    "parameter": torch.nn.Parameter,
    "buffer": torch.nn.Buffer,
    "float64": lambda x: x.double(),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
}

REFUSED: dict[str, tuple[Change, str]] = {
    "conjugate-bit": (lambda x: torch.complex(x, x).conj(), "complex64"),
    "complex-halves": (lambda x: torch.complex(x, x).to(torch.complex32), "complex32"),
    "coo": (lambda x: x.to_sparse(), "sparse_coo"),
    "csr": (lambda x: x.to_sparse_csr(), "sparse_csr"),
    "csc": (lambda x: x.to_sparse_csc(), "sparse_csc"),
    "bsr": (lambda x: x.to_sparse_bsr((1, 1)), "sparse_bsr"),
    "meta": (lambda x: x.to("meta"), "meta"),
    "quantized": (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "quantized"),
    "quantized-by-channel": (
        lambda x: torch.quantize_per_channel(
            x, torch.ones(len(x)), torch.zeros(len(x)), 0, torch.quint8
        ),
        "quantized",
    ),
    "nested": (lambda x: torch.nested.nested_tensor([x[0], x[1]]), "nested"),
    "integers": (lambda x: x.long(), "int64"),
    "booleans": (lambda x: x.bool(), "bool"),
    "bits": (lambda x: x.view(torch.uint8)[:, ::4].contiguous().view(torch.bits8), "bits8"),
    "float4": (
        lambda x: torch.zeros(x.shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "float4_e2m1fn_x2",
    ),
    "exponents-alone": (lambda x: x.abs().to(torch.float8_e8m0fnu), "float8_e8m0fnu"),
}


def saved(folder: Path, change: Change, key: str = KEY) -> tuple[Path, Tensor]:
    payload = authors_payload(SGR)
    (part,) = (part for part in payload["model"] if key in part)
    part[key] = changed = change(part[key])
    torch.save(payload, folder / "checkpoint.pth.tar")
    return folder / "checkpoint.pth.tar", changed


@pytest.mark.parametrize("change", READ.values(), ids=READ)
def test_numbers_are_read_as_they_are_meant(tmp_path: Path, change: Change) -> None:
    path, tensor = saved(tmp_path, change)
    expected = np.array(tensor.detach().to(torch.float32).tolist(), dtype=np.float32)
    found = read_checkpoint(path).weights[NAME]
    np.testing.assert_array_equal(found, expected)
    assert found.flags.owndata
    assert found.flags.c_contiguous


@pytest.mark.filterwarnings("ignore")  # Of kinds that PyTorch itself calls experimental.
@pytest.mark.parametrize(("change", "kind"), REFUSED.values(), ids=REFUSED)
def test_what_are_no_plain_numbers_is_refused(tmp_path: Path, change: Change, kind: str) -> None:
    path, _ = saved(tmp_path, change)
    error = refusal(path)
    naming(KEY, kind).check("reason", error.reason)
    check_error(error, got=naming(kind))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [change for change, _ in REFUSED.values()], ids=REFUSED)
def test_a_bare_state_dict_of_them_is_no_checkpoint(tmp_path: Path, change: Change) -> None:
    path = tmp_path / "bare.pth"
    torch.save({KEY: change(authors_payload(SGR)["model"][0][KEY])}, path)
    check_error(refusal(path), expected=naming("epoch", "model", "opt"), got=naming(KEY))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool, torch.float64], ids=str)
def test_a_counter_may_be_any_whole_number(tmp_path: Path, dtype: torch.dtype) -> None:
    key = "v_global_w.embedding_local.1.num_batches_tracked"
    path, _ = saved(tmp_path, lambda x: torch.ones_like(x, dtype=dtype), key)
    weights = read_checkpoint(path).weights
    assert weights["image_global.local_norm.num_batches_tracked"] == 1


@pytest.mark.parametrize("dtype", [torch.complex64, torch.uint64], ids=str)
def test_a_counter_of_another_kind_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    key = "v_global_w.embedding_local.1.num_batches_tracked"
    path, _ = saved(tmp_path, lambda x: torch.ones_like(x, dtype=dtype), key)
    check_error(refusal(path), key, got=str(dtype).removeprefix("torch."))


@pytest.mark.filterwarnings("ignore")  # PyTorch itself calls them experimental.
def test_what_makes_a_jagged_tensor_is_named(tmp_path: Path) -> None:
    path, _ = saved(
        tmp_path, lambda x: torch.nested.nested_tensor([x[0], x[1]], layout=torch.jagged)
    )
    check_error(refusal(path), got=naming("nested_tensor._rebuild_njt"))
