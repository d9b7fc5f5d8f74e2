/* From alignments to logits: similarity graph reasoning, or attention filtration. */
#ifndef SGRAF_REASONING_H
#define SGRAF_REASONING_H

#include "alignment.h"

/* Where a pair's nodes begin: its global alignment, then its words. */
static long node_column(const Group *group, long pair) { return group->column[pair] + pair; }

static long node_count(const Group *group, long pair) {
    return group->column[pair + 1] - group->column[pair] + 1;
}

/* Nodes (rows, words + pairs) from local alignments, normalised here, and global ones. */
static void make_nodes(Panel *panel, const Group *group) {
    Workspace *w = &panel->work;
    long pairs = group->end - group->first;
    begin(w, SGRAF_LOCAL, SGRAF_ARITHMETIC);
    assert(group->words + pairs + VL <= w->node_stride); /* the last pair has a vector to spare */
    inverse_norms(w->local, w->rows, w->node_stride, group->words, w->norm);
    for (long m = 0; m < w->rows; m++) {
        const float *x = w->local + m * w->node_stride;
        const float *global = w->global + m * w->pair_stride + group->first;
        for (long pair = 0; pair < pairs; pair++) {
            float *node = w->nodes + m * w->node_stride + node_column(group, pair);
            *node++ = global[pair];
            for (long t = group->column[pair]; t < group->column[pair + 1]; t += VL, node += VL)
                store(node, load(x + t) * load(w->norm + t)); /* the next pair overwrites the rest */
        }
    }
}

static __attribute__((noinline)) void edge_product(const Product *p) { multiply(0, SET, p); }

static __attribute__((noinline)) void message_product(const Product *p) { multiply(1, SET, p); }

/* Softmax of each column over so many rows. */
static void softmax(float *x, long rows, long stride, long columns) {
    for (long t = 0; t < columns; t += VL) {
        vec most = load(x + t), sum = {0};
        for (long r = 1; r < rows; r++) {
            vec each = load(x + r * stride + t);
            most = blend(each > most, each, most);
        }
        for (long r = 0; r < rows; r++) {
            vec e = exponential(load(x + r * stride + t) - most);
            store(x + r * stride + t, e);
            sum += e;
        }
        sum = 1.0f / sum;
        for (long r = 0; r < rows; r++) store(x + r * stride + t, load(x + r * stride + t) * sum);
    }
}

/* A pair's columns, side by side in the first cache: (sim_dim, stride). */
static void gather_columns(const float *restrict from, long from_stride, long rows, long columns,
                           float *restrict to, long to_stride) {
    for (long t = 0; t < columns; t += VL)
        for (long m = 0; m < rows; m++) store(to + m * to_stride + t, load(from + m * from_stride + t));
}

/* message (rows, queries) = nodes softmax(nodes^T query), for one pair, some queries at a time. */
static void messages(const Workspace *w, long sim_dim, const float *nodes, long count,
                     const float *query, float *message) {
    long stride = whole_vectors(count);
    assert(0 < count && count <= w->longest + 1);
    begin(w, SGRAF_SGR, SGRAF_MOVES);
    gather_columns(nodes, w->node_stride, w->rows, count, w->pair_nodes, stride);
    for (long first = 0; first < count; first += QUERIES) {
        long queries = first + QUERIES < count ? QUERIES : count - first;
        Product edges = { /* rows past the last are unused */
            .m = (count + MR - 1) / MR * MR, .k = sim_dim, .t = queries,
            .a = w->pair_nodes, .a_k = stride, .a_block = 1,
            .b = query + first, .b_k = w->node_stride, .out = w->edges, .out_m = w->edge_stride,
        };
        begin_product(w, SGRAF_SGR, count, sim_dim, queries);
        edge_product(&edges);
        begin(w, SGRAF_SGR, SGRAF_ARITHMETIC);
        softmax(w->edges, count, w->edge_stride, queries);
        Product sums = {
            .m = w->rows, .k = count, .t = queries,
            .a = w->pair_nodes, .a_m = stride, .a_block = stride,
            .b = w->edges, .b_k = w->edge_stride, .out = message + first, .out_m = w->node_stride,
        };
        begin_product(w, SGRAF_SGR, sim_dim, count, queries);
        message_product(&sums);
    }
}

/* out[m * stride] = sum over t of x[m][t] weight[t], a pair's nodes by their weights. */
static void weighted_nodes(const Workspace *w, const float *restrict x, long count,
                           const float *restrict weight, float *restrict out) {
    for (long m = 0; m < w->rows; m += VL) {
        vec sum[VL], total = {0};
        for (long i = 0; i < VL; i++) {
            const float *row = x + (m + i < w->rows ? m + i : w->rows - 1) * w->node_stride;
            sum[i] = (vec){0};
            for (long t = 0; t < count; t += VL)
                sum[i] += first_lanes(load(row + t) * load(weight + t), count - t);
        }
        transpose_square(sum);
        for (long i = 0; i < VL; i++) total += sum[i];
        for (long i = 0; i < VL && m + i < w->rows; i++) out[(m + i) * w->pair_stride] = total[i];
    }
}

/* Every node's step but the last: x <- relu(W softmax(Q K^T) x). */
static void whole_step(Workspace *w, const Model *model, const Group *group, long step) {
    long pairs = group->end - group->first, columns = group->words + pairs;
    Product query = {
        .m = w->rows, .t = columns, .b = w->nodes, .b_k = w->node_stride,
        .out = w->next, .out_m = w->node_stride,
    };
    begin_product(w, SGRAF_SGR, model->sim_dim, model->sim_dim, columns);
    whole_layer(&model->key[step], model->sim_dim, query, 0);
    for (long pair = 0; pair < pairs; pair++) {
        long column = node_column(group, pair), count = node_count(group, pair);
        messages(w, model->sim_dim, w->nodes + column, count, w->next + column,
                 w->message + column);
    }
    Product update = {
        .m = w->rows, .t = columns, .b = w->message, .b_k = w->node_stride,
        .out = w->nodes, .out_m = w->node_stride,
    };
    begin_product(w, SGRAF_SGR, model->sim_dim, model->sim_dim, columns);
    whole_layer(&model->update[step], model->sim_dim, update, 1);
}

/* Node 0 of every pair, side by side: (rows, pairs). */
static void first_nodes(Workspace *w, const Group *group) {
    begin(w, SGRAF_SGR, SGRAF_MOVES);
    for (long m = 0; m < w->rows; m++)
        for (long pair = 0; pair < group->end - group->first; pair++)
            w->first[m * w->pair_stride + pair] =
                w->nodes[m * w->node_stride + node_column(group, pair)];
}

/* Node 0's message: as `messages`, of one query (sim_dim, pairs). */
static void first_message(const Workspace *w, long sim_dim, const float *nodes, long count,
                          const float *query, float *message) {
    assert(0 < count && count <= w->longest + 1);
    float *weight = w->edges, total = 0.0f, most = 0.0f;
    Product edges = {
        .m = 1, .k = sim_dim, .t = count,
        .a = query, .a_k = w->pair_stride, .a_block = 1,
        .b = nodes, .b_k = w->node_stride, .out = weight, .out_m = w->edge_stride,
    };
    begin_product(w, SGRAF_SGR, 1, sim_dim, count);
    edge_product(&edges);
    begin(w, SGRAF_SGR, SGRAF_ARITHMETIC);
    for (long t = 0; t < count; t++) most = t == 0 || weight[t] > most ? weight[t] : most;
    for (long t = 0; t < count; t += VL) store(weight + t, exponential(load(weight + t) - most));
    for (long t = 0; t < count; t++) total += weight[t];
    for (long t = 0; t < count; t++) weight[t] /= total;
    begin_product(w, SGRAF_SGR, sim_dim, count, 1);
    weighted_nodes(w, nodes, count, weight, message);
}

/* SGR's vectors (rows, pairs) in `first`; of the last step only node 0 is computed. */
static void reason(Workspace *w, const Model *model, const Group *group) {
    long pairs = group->end - group->first, last = model->steps - 1;
    for (long step = 0; step < last; step++) whole_step(w, model, group, step);
    first_nodes(w, group);
    if (model->steps == 0) return;
    Product query = {
        .m = w->rows, .t = pairs, .b = w->first, .b_k = w->pair_stride,
        .out = w->query, .out_m = w->pair_stride,
    };
    begin_product(w, SGRAF_SGR, model->sim_dim, model->sim_dim, pairs);
    whole_layer(&model->key[last], model->sim_dim, query, 0);
    for (long pair = 0; pair < pairs; pair++)
        first_message(w, model->sim_dim, w->nodes + node_column(group, pair),
                      node_count(group, pair), w->query + pair, w->message + pair);
    Product update = {
        .m = w->rows, .t = pairs, .b = w->message, .b_k = w->pair_stride,
        .out = w->first, .out_m = w->pair_stride,
    };
    begin_product(w, SGRAF_SGR, model->sim_dim, model->sim_dim, pairs);
    whole_layer(&model->update[last], model->sim_dim, update, 1);
}

/* SAF's vectors (rows, pairs) in `first`: the mean of the nodes by their gates, l2-normalised. */
static void filtrate(Workspace *w, const Model *model, const Group *group) {
    long pairs = group->end - group->first, columns = group->words + pairs;
    Product gates = {
        .m = 1, .k = model->sim_dim, .t = columns,
        .a = model->filtration.weight, .a_k = 1, .a_block = 0,
        .b = w->nodes, .b_k = w->node_stride, .out = w->message, .bias = model->filtration.bias,
    };
    begin_product(w, SGRAF_SAF, 1, model->sim_dim, columns);
    first_part(&gates);
    begin(w, SGRAF_SAF, SGRAF_ARITHMETIC);
    for (long t = 0; t < columns; t += VL)
        store(w->message + t, 1.0f / (1.0f + exponential(-load(w->message + t))));
    for (long pair = 0; pair < pairs; pair++) {
        long column = node_column(group, pair), count = node_count(group, pair);
        float *gate = w->message + column, sum = 0.0f;
        for (long t = 0; t < count; t++) sum += gate[t];
        float share = 1.0f / (sum + EPSILON);
        for (long t = 0; t < count; t++) w->edges[t] = gate[t] * share;
        begin_product(w, SGRAF_SAF, model->sim_dim, count, 1);
        weighted_nodes(w, w->nodes + column, count, w->edges, w->first + pair);
        begin(w, SGRAF_SAF, SGRAF_ARITHMETIC);
    }
    normalise(w->first, w->rows, w->pair_stride, pairs, w->norm);
}

static void head(const Workspace *w, const Model *model, const Group *group, float *logits) {
    long pairs = group->end - group->first;
    begin_product(w, SGRAF_HEAD, 1, model->sim_dim, pairs);
    for (long pair = 0; pair < pairs; pair++) {
        float sum = 0.0f;
        for (long m = 0; m < model->sim_dim; m++)
            sum += model->similarity.weight[m] * w->first[m * w->pair_stride + pair];
        logits[pair] = sum + model->similarity.bias[0];
    }
}

#endif
