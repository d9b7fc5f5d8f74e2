"""Triton kernels from encoded words and regions to alignments.

Every kernel has a flat grid; arrays are row-major, `_rows` count rows. `columns` is how far rows of
`raw` and `scales` lie apart: N*R rounded up to a multiple of `blocks.ALIGNMENT`, so that 16 bytes
may be read at a time and one compiled kernel serves any number of images. Operands are float16 or
float32 as they come, sums and norms are float32. Decorated on import: with Triton's interpreter
on, they run on the CPU.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgraf_deploy.model import constants

SLOPE = tl.constexpr(constants.LEAKY_SLOPE)
SMOOTHING = tl.constexpr(constants.ATTENTION_SMOOTHING)
EPSILON = tl.constexpr(constants.EPSILON)


@triton.jit(do_not_specialize=["word_rows", "region_rows"])
def raw_attention(
    words,
    regions,
    raw,
    word_rows,
    region_rows,
    columns,
    embed: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_embed: tl.constexpr,
):
    """leaky_relu(word · region): words (T, D), regions (N*R, D) -> raw (T, N*R) float32.

    Columns beyond N*R are zeros.
    """
    tiles = tl.cdiv(word_rows, block_rows)
    rows = (tl.program_id(0) % tiles) * block_rows + tl.arange(0, block_rows)
    places = (tl.program_id(0) // tiles) * block_columns + tl.arange(0, block_columns)
    steps = tl.arange(0, block_embed)
    row_starts = rows.to(tl.int64)[:, None] * embed
    column_starts = places.to(tl.int64)[None, :] * embed
    total = tl.zeros((block_rows, block_columns), tl.float32)
    for start in range(0, embed, block_embed):
        inside = start + steps < embed
        word = tl.load(
            words + row_starts + (start + steps)[None, :],
            mask=(rows < word_rows)[:, None] & inside[None, :],
            other=0.0,
        )
        region = tl.load(
            regions + column_starts + (start + steps)[:, None],
            mask=inside[:, None] & (places < region_rows)[None, :],
            other=0.0,
        )
        total = tl.dot(word, region, total, input_precision="ieee")
    total = tl.where(total < 0, total * SLOPE, total)
    tl.store(
        raw + rows.to(tl.int64)[:, None] * columns + places[None, :],
        total,
        mask=(rows < word_rows)[:, None] & (places < columns)[None, :],
    )


@triton.jit(do_not_specialize=["captions"])
def word_scales(
    raw,
    scales,
    first_word,
    lengths,
    captions,
    columns,
    block_words: tl.constexpr,
    block_columns: tl.constexpr,
):
    """9 / (norm over a caption's words + 1e-8): raw (T, N*R) -> scales (C, N*R) float32."""
    caption = tl.program_id(0) % captions
    places = (tl.program_id(0) // captions) * block_columns + tl.arange(0, block_columns)
    first = tl.load(first_word + caption)
    length = tl.load(lengths + caption)
    squared = tl.zeros((block_columns,), tl.float32)
    for start in range(0, length, block_words):
        words = start + tl.arange(0, block_words)
        attention = tl.load(
            raw + (first + words).to(tl.int64)[:, None] * columns + places[None, :],
            mask=(words < length)[:, None] & (places < columns)[None, :],
            other=0.0,
        )
        squared += tl.sum(attention * attention, 0)
    tl.store(
        scales + caption.to(tl.int64) * columns + places,
        1.0 / (tl.sqrt(squared) + EPSILON) * SMOOTHING,
        mask=places < columns,
    )


@triton.jit
def _add_product(
    total,
    difference,
    weight,
    terms,
    embed: tl.constexpr,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
):
    """total + difference² @ weight over some `terms` of the embedding axis."""
    units = tl.arange(0, padded_sim)
    block = tl.load(
        weight + terms[:, None] * sim_dim + units[None, :],
        mask=(terms < embed)[:, None] & (units < sim_dim)[None, :],
        other=0.0,
    )
    squared = (difference * difference).to(block.dtype)
    return tl.dot(squared, block, total, input_precision="ieee")


@triton.jit
def _store_unit_rows(total, bias, targets, real, sim_dim: tl.constexpr, padded_sim: tl.constexpr):
    """l2norm(total + bias) per row, stored to the rows that `targets` points to."""
    units = tl.arange(0, padded_sim)
    total += tl.load(bias + units, mask=units < sim_dim, other=0.0)[None, :]
    norm = tl.sqrt(tl.sum(total * total, 1)) + EPSILON
    total = total / norm[:, None]
    tl.store(
        targets[:, None] + units[None, :],
        total.to(targets.dtype.element_ty),
        mask=real[:, None] & (units < sim_dim)[None, :],
    )


@triton.jit
def _region_weights(raw, scales, real, region_count: tl.constexpr, padded_regions: tl.constexpr):
    """softmax(raw * scales) over regions, from pointers to the rows (words, 1)."""
    places = tl.arange(0, padded_regions)[None, :]
    mask = real[:, None] & (places < region_count)
    attention = tl.load(raw + places, mask=mask, other=0.0)
    attention *= tl.load(scales + places, mask=mask, other=0.0)
    attention = tl.where(places < region_count, attention, -float("inf"))
    attention = tl.exp(attention - tl.max(attention, 1)[:, None])
    return attention / tl.sum(attention, 1)[:, None]


@triton.jit
def _context_norms(weights, gram, precision: tl.constexpr, region_count: tl.constexpr):
    """sqrt(a G a) of weights (words, R) and one image's G = v vT, float32."""
    places = tl.arange(0, weights.shape[1])
    products = tl.load(
        gram + places[:, None] * region_count + places[None, :],
        mask=(places < region_count)[:, None] & (places < region_count)[None, :],
        other=0.0,
    )
    squared = tl.sum(tl.dot(weights, products, input_precision=precision) * weights, 1)
    return tl.sqrt(tl.maximum(squared, 0.0))


@triton.jit
def _project_differences(
    weights,
    scale,
    regions,
    words,
    real,
    weight,
    region_count: tl.constexpr,
    embed: tl.constexpr,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_embed: tl.constexpr,
):
    """(context - word)² @ weight, the embedding axis in blocks.

    A context is scale times weights (words, R) @ regions; `regions` points to one image, `words`
    to rows (words, 1).
    """
    steps = tl.arange(0, block_embed)
    places = tl.arange(0, weights.shape[1])[:, None]
    total = tl.zeros((weights.shape[0], padded_sim), tl.float32)
    for start in range(0, embed, block_embed):
        terms = start + steps
        inside = (terms < embed)[None, :]
        region = tl.load(
            regions + places * embed + terms[None, :],
            mask=(places < region_count) & inside,
            other=0.0,
        )
        word = tl.load(words + terms[None, :], mask=real[:, None] & inside, other=0.0)
        context = tl.dot(weights, region, input_precision="ieee") * scale[:, None]
        difference = context - word.to(tl.float32)
        total = _add_product(total, difference, weight, terms, embed, sim_dim, padded_sim)
    return total


@triton.jit(do_not_specialize=["word_rows", "node_rows"])
def local_alignments(
    raw,
    scales,
    regions,
    gram,
    words,
    word_caption,
    word_node,
    weight,
    bias,
    nodes,
    word_rows,
    node_rows,
    columns,
    gram_precision: tl.constexpr,
    region_count: tl.constexpr,
    padded_regions: tl.constexpr,
    embed: tl.constexpr,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_rows: tl.constexpr,
    block_embed: tl.constexpr,
):
    """Alignments of a block of words with one image, written to their rows of `nodes`.

    raw (T, N*R) and scales (C, N*R) float32, regions (N, R, D), gram (N, R, R) float32 = v vT,
    words (T, D), weight (D, S), bias (S) float32 -> nodes (N, T + C, S). A block may hold words of
    several captions. Contexts are scaled after the product: 1 / norm may exceed float16's range.
    """
    tiles = tl.cdiv(word_rows, block_rows)
    rows = (tl.program_id(0) % tiles) * block_rows + tl.arange(0, block_rows)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    real = rows < word_rows
    row_starts = rows.to(tl.int64)[:, None]
    caption = tl.load(word_caption + rows, mask=real, other=0).to(tl.int64)
    first_region = image * region_count
    raw += row_starts * columns + first_region
    scales += caption[:, None] * columns + first_region
    attention = _region_weights(raw, scales, real, region_count, padded_regions)
    weights = attention.to(regions.dtype.element_ty)
    gram += first_region * region_count
    norm = _context_norms(weights.to(tl.float32), gram, gram_precision, region_count)
    regions += first_region * embed
    words += row_starts * embed
    total = _project_differences(
        weights,
        1.0 / (norm + EPSILON),
        regions,
        words,
        real,
        weight,
        region_count,
        embed,
        sim_dim,
        padded_sim,
        block_embed,
    )
    nodes += (image * node_rows + tl.load(word_node + rows, mask=real, other=0)) * sim_dim
    _store_unit_rows(total, bias, nodes, real, sim_dim, padded_sim)


@triton.jit(do_not_specialize=["pairs", "captions", "node_rows"])
def global_alignments(
    image_global,
    text_global,
    first_node,
    weight,
    bias,
    nodes,
    pairs,
    captions,
    node_rows,
    embed: tl.constexpr,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_rows: tl.constexpr,
    block_embed: tl.constexpr,
):
    """Global alignments of a block of pairs, written to the first row of each in `nodes`.

    image_global (N, D), text_global (C, D), weight (D, S), bias (S) float32 -> nodes
    (N, T + C, S). Pairs are numbered image by image.
    """
    pair = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    real = pair < pairs
    image = (pair // captions).to(tl.int64)
    caption = (pair % captions).to(tl.int64)
    steps = tl.arange(0, block_embed)
    total = tl.zeros((block_rows, padded_sim), tl.float32)
    for start in range(0, embed, block_embed):
        inside = start + steps < embed
        mask = real[:, None] & inside[None, :]
        places = (start + steps)[None, :]
        left = tl.load(image_global + image[:, None] * embed + places, mask=mask, other=0.0)
        right = tl.load(text_global + caption[:, None] * embed + places, mask=mask, other=0.0)
        difference = left.to(tl.float32) - right.to(tl.float32)
        total = _add_product(total, difference, weight, start + steps, embed, sim_dim, padded_sim)
    node = tl.load(first_node + caption, mask=real, other=0)
    targets = nodes + (image * node_rows + node) * sim_dim
    _store_unit_rows(total, bias, targets, real, sim_dim, padded_sim)
