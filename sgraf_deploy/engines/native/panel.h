/* A panel: pairs of images and captions whose words lie transposed in slots. */
#ifndef SGRAF_PANEL_H
#define SGRAF_PANEL_H

#include "half.h"
#include "product.h"
#include "stages.h"

#define EPSILON 1e-8f

typedef struct {
    int32_t caption, length;
    long column; /* of its first word in `slots` */
} Slot;

typedef struct {
    int32_t image, slot;
} Pair;

typedef struct {
    const Model *model;
    const Images *images;
    const Captions *captions;
    Workspace work;
    Slot slots[GROUP_WORDS];
    Pair pairs[PANEL_PAIRS];
    long slot_count, slot_columns, pair_count;
} Panel;

/* to (embed, columns) = from (columns, embed), less the vector `minus` and squared if there is one.
 *
 * Whole squares of VL columns are written: the next columns overwrite what is too much.
 */
INLINE void transposed(const float *const *from, long count, long embed, float *restrict to,
                       long stride, const float *const *minus) {
    for (long first = 0; first < count; first += VL) {
        long columns = first + VL < count ? VL : count - first;
        long k = 0;
        for (; k + VL <= embed; k += VL) {
            vec x[VL];
            for (long i = 0; i < VL; i++) {
                long column = first + (i < columns ? i : columns - 1);
                x[i] = load(from[column] + k);
                if (minus) x[i] -= load(minus[column] + k);
                if (minus) x[i] *= x[i];
            }
            transpose_square(x);
            for (long i = 0; i < VL; i++) store(to + (k + i) * stride + first, x[i]);
        }
        for (; k < embed; k++)
            for (long column = first; column < first + columns; column++) {
                float x = from[column][k] - (minus ? minus[column][k] : 0.0f);
                to[k * stride + column] = minus ? x * x : x;
            }
    }
}

/* A caption's slot: the last one if it is the same caption, else a new one. -1: no room. */
static long slot_of(Panel *panel, int32_t caption) {
    long last = panel->slot_count - 1;
    if (last >= 0 && panel->slots[last].caption == caption) return last;
    const Captions *captions = panel->captions;
    int32_t length = captions->lengths[caption];
    assert(0 < length && length <= captions->longest);
    if (panel->slot_count == GROUP_WORDS) return -1;
    if (last >= 0 && panel->slot_columns + length > GROUP_WORDS) return -1;
    Slot *slot = &panel->slots[panel->slot_count];
    *slot = (Slot){caption, length, panel->slot_columns};
    long embed = panel->model->embed;
    const float *words = captions->words + (size_t)captions->offsets[caption] * embed;
    begin(&panel->work, SGRAF_WORDS, SGRAF_MOVES);
    assert(slot->column + whole_vectors(length) <= panel->work.slot_stride);
    for (long first = 0; first < length; first += VL) {
        const float *rows[VL];
        long count = first + VL < length ? VL : length - first;
        for (long i = 0; i < count; i++) rows[i] = words + (first + i) * embed;
        transposed(rows, count, embed, panel->work.slots + slot->column + first,
                   panel->work.slot_stride, 0);
    }
    begin(&panel->work, SGRAF_REST, SGRAF_MOVES);
    panel->slot_columns += length;
    return panel->slot_count++;
}

/* What every column (rows, columns) is multiplied by to have norm 1. */
static void inverse_norms(const float *restrict x, long rows, long stride, long columns,
                          float *restrict inverse) {
    memset(inverse, 0, (size_t)columns * sizeof(float));
    for (long m = 0; m < rows; m++)
        for (long t = 0; t < columns; t++) inverse[t] += x[m * stride + t] * x[m * stride + t];
    for (long t = 0; t < columns; t++) inverse[t] = 1.0f / (__builtin_sqrtf(inverse[t]) + EPSILON);
}

/* Divide every column (rows, columns) by its norm. */
static void normalise(float *restrict x, long rows, long stride, long columns,
                      float *restrict norm) {
    inverse_norms(x, rows, stride, columns, norm);
    for (long m = 0; m < rows; m++)
        for (long t = 0; t < columns; t++) x[m * stride + t] *= norm[t];
}

static __attribute__((noinline)) void first_part(const Product *p) { multiply(0, BIAS, p); }

static __attribute__((noinline)) void next_part(const Product *p) { multiply(0, ADD, p); }

static __attribute__((noinline)) void last_part(const Product *p) { multiply(0, ADD_RELU, p); }

static __attribute__((noinline)) void only_part(const Product *p) { multiply(0, RELU, p); }

/* How many inputs of so many the part from `row` on takes. */
static long part_depth(long row, long inputs) {
    return row + DEPTH < inputs ? DEPTH : inputs - row;
}

/* out (rows, columns) = a layer's part of x, its inputs from `row` on, (inputs, columns). */
static void layer_part(const Linear *layer, long row, long inputs, Product p, int relu) {
    p.k = part_depth(row, inputs);
    p.a = layer->weight + row * p.m;
    p.a_k = MR;
    p.a_block = p.k;
    p.bias = layer->bias;
    if (relu && row + DEPTH >= inputs) row ? last_part(&p) : only_part(&p);
    else row ? next_part(&p) : first_part(&p);
}

/* out (rows, columns) = layer of x (inputs, columns), both with a stride. */
static void whole_layer(const Linear *layer, long inputs, Product p, int relu) {
    const float *x = p.b;
    for (long row = 0; row < inputs; row += DEPTH) {
        p.b = x + row * p.b_k;
        layer_part(layer, row, inputs, p, relu);
    }
}

/* The pairs' images' global vectors, widened if they are float16: an image's once in a row. */
static void find_globals(Panel *panel, const float **found) {
    size_t embed = (size_t)panel->model->embed;
    float *widened = panel->work.images;
    for (long pair = 0; pair < panel->pair_count; pair++) {
        const size_t image = (size_t)panel->pairs[pair].image;
        if (!panel->images->half_global) {
            found[pair] = (const float *)panel->images->global + image * embed;
        } else if (pair && panel->pairs[pair - 1].image == panel->pairs[pair].image) {
            found[pair] = found[pair - 1];
        } else {
            widen((const uint16_t *)panel->images->global + image * embed, embed, widened);
            found[pair] = widened;
            widened += embed;
        }
    }
}

/* The global alignments of all pairs: l2norm(W (v - w)^2 + b). */
static void global_alignments(Panel *panel) {
    const Model *model = panel->model;
    Workspace *w = &panel->work;
    long embed = model->embed;
    begin(w, SGRAF_GLOBAL, SGRAF_ARITHMETIC);
    assert(panel->pair_count <= PANEL_PAIRS && whole_vectors(PANEL_PAIRS) <= w->pair_stride);
    const float *images[PANEL_PAIRS], *texts[PANEL_PAIRS];
    find_globals(panel, images);
    for (long pair = 0; pair < panel->pair_count; pair++) {
        int32_t caption = panel->slots[panel->pairs[pair].slot].caption;
        texts[pair] = panel->captions->global + (size_t)caption * embed;
    }
    transposed(images, panel->pair_count, embed, w->difference, w->pair_stride, texts);
    Product p = {
        .m = w->rows, .t = panel->pair_count,
        .b = w->difference, .b_k = w->pair_stride, .out = w->global, .out_m = w->pair_stride,
    };
    begin_product(w, SGRAF_GLOBAL, model->sim_dim, embed, p.t);
    whole_layer(&model->global, embed, p, 0);
    begin(w, SGRAF_GLOBAL, SGRAF_ARITHMETIC);
    normalise(w->global, w->rows, w->pair_stride, panel->pair_count, w->norm);
}

#endif
