"""Triton kernels from alignments to logits: SGR's steps and SAF.

`nodes` (N, T + C, S) holds, image by image and caption by caption, the global alignment and then
the words'. Pairs are numbered image by image. Sums, softmaxes, gates and norms are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sgraf_deploy.model import constants

EPSILON = tl.constexpr(constants.EPSILON)


@triton.jit(do_not_specialize=["tiles", "node_rows"])
def reasoning_step(
    nodes,
    output,
    node_caption,
    tile_first,
    tile_end,
    tile_first_key,
    tile_end_key,
    key_weight,
    key_bias,
    update_weight,
    update_bias,
    tiles,
    node_rows,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_nodes: tl.constexpr,
    block_keys: tl.constexpr,
    single: tl.constexpr,
    block_sim: tl.constexpr,
):
    """One SGR step of every node: relu(W softmax(Q KT) x + b), nodes -> output (N, T + C, S).

    A program takes the nodes tile_first … tile_end of one image, whose captions' nodes are
    tile_first_key … tile_end_key; edges between captions are masked. Queries, edges and messages
    stay on the chip, transposed, nodes last: a tensor core then reads every one of them from
    shared memory, and registers are left for the sums (measured: no spills, 1.3 KB otherwise).
    """
    tile = tl.program_id(0) % tiles
    image = (tl.program_id(0) // tiles).to(tl.int64)
    first = tl.load(tile_first + tile)
    count = tl.load(tile_end + tile) - first
    source = nodes + (image * node_rows + first) * sim_dim
    captions = node_caption + first
    caption, query = _queries(
        source, captions, count, key_weight, key_bias, sim_dim, padded_sim, block_nodes, block_sim
    )
    first_key = tl.load(tile_first_key + tile)
    keys = tl.load(tile_end_key + tile) - first_key
    source = nodes + (image * node_rows + first_key) * sim_dim
    captions = node_caption + first_key
    message = _messages(
        query, caption, source, captions, keys, sim_dim, padded_sim, block_nodes, block_keys, single
    )
    target = output + (image * node_rows + first) * sim_dim
    _store_updates(
        message,
        target,
        count,
        update_weight,
        update_bias,
        sim_dim,
        padded_sim,
        block_nodes,
        block_sim,
    )


@triton.jit
def _queries(
    sources,
    node_caption,
    count,
    weight,
    bias,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_nodes: tl.constexpr,
    block_sim: tl.constexpr,
):
    """The captions (-1 beyond `count`) and queries (S, nodes) of `count` rows from `sources` on."""
    rows = tl.arange(0, block_nodes)
    units = tl.arange(0, padded_sim)
    known = units < sim_dim
    steps = tl.arange(0, block_sim)
    query = tl.zeros((padded_sim, block_nodes), tl.float32)
    for start in range(0, sim_dim, block_sim):
        inside = start + steps < sim_dim
        matrix = tl.load(
            weight + (start + steps)[:, None] * sim_dim + units[None, :],
            mask=inside[:, None] & known[None, :],
            other=0.0,
        )
        x = tl.load(
            sources + rows[:, None] * sim_dim + (start + steps)[None, :],
            mask=(rows < count)[:, None] & inside[None, :],
            other=0.0,
        )
        query = tl.dot(tl.trans(matrix), tl.trans(x), query, input_precision="ieee")
    query += tl.load(bias + units, mask=known, other=0.0)[:, None]
    caption = tl.load(node_caption + rows, mask=rows < count, other=-1)
    return caption, query.to(sources.dtype.element_ty)


@triton.jit
def _messages(
    query,
    caption,
    sources,
    node_caption,
    count,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_nodes: tl.constexpr,
    block_keys: tl.constexpr,
    single: tl.constexpr,
):
    """softmax(query · node) · node over the `count` nodes from `sources` on: (S, nodes).

    Keys are taken block by block; `single` says that one block holds them all, which spares the
    registers of a loop. The finite stand-in for minus infinity lets columns beyond the
    tile, which see no node, come out as numbers; they are never stored.
    """
    units = tl.arange(0, padded_sim)
    highest = tl.full((block_nodes,), -1e30, tl.float32)
    weight = tl.zeros((block_nodes,), tl.float32)
    message = tl.zeros((padded_sim, block_nodes), tl.float32)
    limit = block_keys if single else count
    for start in range(0, limit, block_keys):
        keys = start + tl.arange(0, block_keys)
        x = tl.load(
            sources + keys[:, None] * sim_dim + units[None, :],
            mask=(keys < count)[:, None] & (units < sim_dim)[None, :],
            other=0.0,
        )
        key_caption = tl.load(node_caption + keys, mask=keys < count, other=-2)
        edges = tl.dot(x, query, input_precision="ieee")
        edges = tl.where(key_caption[:, None] == caption[None, :], edges, -float("inf"))
        higher = tl.maximum(highest, tl.max(edges, 0))
        attention = tl.exp(edges - higher[None, :])
        kept = tl.exp(highest - higher)
        weight = weight * kept + tl.sum(attention, 0)
        message = tl.dot(
            tl.trans(x), attention.to(x.dtype), message * kept[None, :], input_precision="ieee"
        )
        highest = higher
    return (message / tl.where(weight > 0, weight, 1.0)[None, :]).to(query.dtype)


@triton.jit
def _store_updates(
    message,
    targets,
    count,
    weight,
    bias,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_nodes: tl.constexpr,
    block_sim: tl.constexpr,
):
    """relu(weightT message + bias), message (S, nodes), stored to `count` rows in pieces."""
    rows = tl.arange(0, block_nodes)
    units = tl.arange(0, padded_sim)
    for start in range(0, sim_dim, block_sim):
        columns = start + tl.arange(0, block_sim)
        matrix = tl.load(
            weight + units[:, None] * sim_dim + columns[None, :],
            mask=(units < sim_dim)[:, None] & (columns < sim_dim)[None, :],
            other=0.0,
        )
        update = tl.dot(tl.trans(matrix), message, input_precision="ieee")
        update += tl.load(bias + columns, mask=columns < sim_dim, other=0.0)[:, None]
        tl.store(
            targets + rows[None, :] * sim_dim + columns[:, None],
            tl.maximum(update, 0.0).to(targets.dtype.element_ty),
            mask=(rows < count)[None, :] & (columns < sim_dim)[:, None],
        )


@triton.jit
def _project(
    sources,
    real,
    weight,
    bias,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_rows: tl.constexpr,
    block_sim: tl.constexpr,
):
    """x @ weight + bias of the rows that `sources` points to."""
    units = tl.arange(0, padded_sim)
    steps = tl.arange(0, block_sim)
    total = tl.zeros((block_rows, padded_sim), tl.float32)
    for start in range(0, sim_dim, block_sim):
        inside = start + steps < sim_dim
        x = tl.load(
            sources[:, None] + (start + steps)[None, :],
            mask=real[:, None] & inside[None, :],
            other=0.0,
        )
        matrix = tl.load(
            weight + (start + steps)[:, None] * sim_dim + units[None, :],
            mask=inside[:, None] & (units < sim_dim)[None, :],
            other=0.0,
        )
        total = tl.dot(x, matrix, total, input_precision="ieee")
    return total + tl.load(bias + units, mask=units < sim_dim, other=0.0)[None, :]


@triton.jit(do_not_specialize=["pairs", "captions", "node_rows"])
def first_queries(
    nodes,
    first_node,
    weight,
    bias,
    queries,
    pairs,
    captions,
    node_rows,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_rows: tl.constexpr,
    block_sim: tl.constexpr,
):
    """The last step's only queries, those of node 0: queries (pairs, S) float32."""
    pair = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    real = pair < pairs
    node = tl.load(first_node + pair % captions, mask=real, other=0)
    sources = nodes + ((pair // captions).to(tl.int64) * node_rows + node) * sim_dim
    total = _project(sources, real, weight, bias, sim_dim, padded_sim, block_rows, block_sim)
    units = tl.arange(0, padded_sim)
    tl.store(
        queries + pair.to(tl.int64)[:, None] * sim_dim + units[None, :],
        total,
        mask=real[:, None] & (units < sim_dim)[None, :],
    )


@triton.jit(do_not_specialize=["captions", "node_rows"])
def first_messages(
    nodes,
    first_node,
    lengths,
    queries,
    messages,
    captions,
    node_rows,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_nodes: tl.constexpr,
):
    """What node 0 of one pair hears in the last step: messages (pairs, S)."""
    pair = tl.program_id(0).to(tl.int64)
    caption = pair % captions
    count = tl.load(lengths + caption) + 1
    first = (pair // captions) * node_rows + tl.load(first_node + caption)
    units = tl.arange(0, padded_sim)
    known = units < sim_dim
    query = tl.load(queries + pair * sim_dim + units, mask=known, other=0.0)
    highest = -float("inf")
    weight = 0.0
    message = tl.zeros((padded_sim,), tl.float32)
    for start in range(0, count, block_nodes):
        places = start + tl.arange(0, block_nodes)
        x = tl.load(
            nodes + (first + places)[:, None] * sim_dim + units[None, :],
            mask=(places < count)[:, None] & known[None, :],
            other=0.0,
        ).to(tl.float32)
        edges = tl.where(places < count, tl.sum(x * query[None, :], 1), -float("inf"))
        higher = tl.maximum(highest, tl.max(edges, 0))
        kept = tl.exp(highest - higher)
        attention = tl.exp(edges - higher)
        weight = weight * kept + tl.sum(attention, 0)
        message = message * kept + tl.sum(attention[:, None] * x, 0)
        highest = higher
    message = message / weight
    tl.store(messages + pair * sim_dim + units, message.to(messages.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=["pairs"])
def reasoning_logits(
    messages,
    update_weight,
    update_bias,
    similarity_weight,
    similarity_bias,
    logits,
    pairs,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_rows: tl.constexpr,
    block_sim: tl.constexpr,
):
    """SGR's last update of node 0 and its similarity: messages (pairs, S) -> logits (pairs,)."""
    pair = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    real = pair < pairs
    sources = messages + pair.to(tl.int64) * sim_dim
    vector = tl.maximum(
        _project(
            sources, real, update_weight, update_bias, sim_dim, padded_sim, block_rows, block_sim
        ),
        0.0,
    )
    units = tl.arange(0, padded_sim)
    row = tl.load(similarity_weight + units, mask=units < sim_dim, other=0.0)
    result = tl.sum(vector * row[None, :], 1) + tl.load(similarity_bias)
    tl.store(logits + pair, result, mask=real)


@triton.jit(do_not_specialize=["captions", "node_rows"])
def filtration_logits(
    nodes,
    first_node,
    lengths,
    gate_weight,
    gate_bias,
    similarity_weight,
    similarity_bias,
    logits,
    captions,
    node_rows,
    sim_dim: tl.constexpr,
    padded_sim: tl.constexpr,
    block_nodes: tl.constexpr,
):
    """SAF of one pair: gates, their l1norm, the weighted sum, its l2norm, logits (pairs,)."""
    pair = tl.program_id(0).to(tl.int64)
    caption = pair % captions
    count = tl.load(lengths + caption) + 1
    first = (pair // captions) * node_rows + tl.load(first_node + caption)
    units = tl.arange(0, padded_sim)
    known = units < sim_dim
    row = tl.load(gate_weight + units, mask=known, other=0.0)
    bias = tl.load(gate_bias)
    weight = 0.0
    vector = tl.zeros((padded_sim,), tl.float32)
    for start in range(0, count, block_nodes):
        places = start + tl.arange(0, block_nodes)
        x = tl.load(
            nodes + (first + places)[:, None] * sim_dim + units[None, :],
            mask=(places < count)[:, None] & known[None, :],
            other=0.0,
        ).to(tl.float32)
        gates = tl.sigmoid(tl.sum(x * row[None, :], 1) + bias)
        gates = tl.where(places < count, gates, 0.0)
        weight += tl.sum(gates, 0)
        vector += tl.sum(gates[:, None] * x, 0)
    vector = vector / (weight + EPSILON)
    vector = vector / (tl.sqrt(tl.sum(vector * vector, 0)) + EPSILON)
    similarity = tl.load(similarity_weight + units, mask=known, other=0.0)
    tl.store(logits + pair, tl.sum(vector * similarity, 0) + tl.load(similarity_bias))
