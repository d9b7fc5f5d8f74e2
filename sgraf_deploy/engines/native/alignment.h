/* Cross attention and local alignments of a group of pairs, words side by side along `t`. */
#ifndef SGRAF_ALIGNMENT_H
#define SGRAF_ALIGNMENT_H

#include "panel.h"

enum { SMOOTHING = 9 };

/* Pairs first ... end - 1 of a panel; `column[i]` is where the words of pair first + i begin, and
 * `place[i]` which of the group's images it has, counted where they change. */
typedef struct {
    long first, end, words;
    long column[GROUP_PAIRS + 1];
    long place[GROUP_PAIRS];
} Group;

/* Pairs of one image whose captions stand in consecutive slots. */
typedef struct {
    long first, end; /* of the group's pairs, counted from its first */
    long column, columns;
    const float *regions, *gram, *words;
} Segment;

/* Images of float16 become float32, each once in a row. */
static void widen_images(Panel *panel, const Group *group) {
    if (!panel->images->half_regions) return;
    size_t size = (size_t)panel->model->regions * (size_t)panel->model->embed;
    const uint16_t *from = panel->images->regions;
    for (long pair = 0; pair < group->end - group->first; pair++) {
        if (pair && group->place[pair] == group->place[pair - 1]) continue;
        size_t image = (size_t)panel->pairs[group->first + pair].image;
        size_t place = (size_t)group->place[pair];
        assert((place + 1) * size <= widened_numbers(panel->model));
        widen(from + image * size, size, panel->work.images + place * size);
    }
}

/* The image of the pair behind a segment, where it is another one; all null without it. */
typedef struct {
    const char *regions;
    const float *gram;
    size_t row; /* bytes of a region */
} Next;

static Next next_image(const Panel *panel, const Group *group, const Segment *s) {
    long after = group->first + s->end;
    if (after >= panel->pair_count || panel->pairs[after].image == panel->pairs[after - 1].image)
        return (Next){0};
    const Images *images = panel->images;
    size_t image = (size_t)panel->pairs[after].image, regions = (size_t)panel->model->regions;
    size_t row = (size_t)panel->model->embed * (images->half_regions ? 2 : sizeof(float));
    return (Next){
        .regions = (const char *)images->regions + image * regions * row, .row = row,
        .gram = images->gram ? images->gram + image * regions * regions : 0,
    };
}

static Segment segment_at(const Panel *panel, const Group *group, long first) {
    const Pair *pairs = panel->pairs + group->first;
    long end = first + 1, count = group->end - group->first;
    while (end < count && pairs[end].image == pairs[first].image &&
           pairs[end].slot == pairs[end - 1].slot + 1)
        end++;
    long regions = panel->model->regions;
    size_t image = (size_t)pairs[first].image, size = (size_t)regions * panel->model->embed;
    return (Segment){
        .first = first, .end = end,
        .column = group->column[first], .columns = group->column[end] - group->column[first],
        .regions = panel->images->half_regions
                       ? panel->work.images + (size_t)group->place[first] * size
                       : (const float *)panel->images->regions + image * size,
        .gram = panel->images->gram ? panel->images->gram + image * regions * regions : 0,
        .words = panel->work.slots + panel->slots[pairs[first].slot].column,
    };
}

static __attribute__((noinline)) void first_scores(const Product *p) { multiply(1, SET, p); }

static __attribute__((noinline)) void next_scores(const Product *p) { multiply(1, ADD, p); }

static __attribute__((noinline)) void last_scores(const Product *p) { multiply(1, ADD_LEAKY, p); }

static __attribute__((noinline)) void only_scores(const Product *p) { multiply(1, LEAKY, p); }

static __attribute__((noinline)) void quadratic_form(const Product *p) {
    multiply(0, QUADRATIC, p);
}

static __attribute__((noinline)) void context_norms(const Product *p) {
    multiply(0, SUM_SQUARE, p);
}

static __attribute__((noinline)) void square_product(const Product *p) { multiply(0, SQUARE, p); }

/* Ask for bytes that are needed soon. */
INLINE void ask_for(const void *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)from + at);
}

/* 9 a / norm, the norm of a region over the words of each caption.
 *
 * Meanwhile the next image comes from memory, region by region: pairs of a caption find their
 * images anywhere in a gallery.
 */
static void smooth(float *attention, long stride, long regions, const long *column, long captions,
                   const Next *next) {
    for (long r = 0; r < regions; r++) {
        if (next->regions) ask_for(next->regions + r * next->row, next->row);
        if (next->gram) ask_for(next->gram + r * regions, (size_t)regions * sizeof(float));
        for (long caption = 0; caption < captions; caption++) {
            float *a = attention + r * stride + column[caption];
            long words = column[caption + 1] - column[caption];
            float sum = 0.0f;
            for (long t = 0; t < words; t++) sum += a[t] * a[t];
            float factor = SMOOTHING / (__builtin_sqrtf(sum) + EPSILON);
            for (long t = 0; t < words; t++) a[t] *= factor;
        }
    }
}

/* Scores (regions, words) of one segment: leaky_relu(v w), `embed` in pieces. */
static void raw_scores(const Workspace *w, const Model *model, const Segment *s) {
    long embed = model->embed;
    begin_product(w, SGRAF_ATTENTION, model->regions, embed, s->columns);
    for (long row = 0; row < embed; row += DEPTH) {
        Product p = {
            .m = model->regions, .k = part_depth(row, embed), .t = s->columns,
            .a = s->regions + row, .a_m = embed, .a_block = embed,
            .b = s->words + row * w->slot_stride, .b_k = w->slot_stride,
            .out = w->attention + s->column, .out_m = w->word_stride,
        };
        if (row + DEPTH >= embed) row ? last_scores(&p) : only_scores(&p);
        else row ? next_scores(&p) : first_scores(&p);
    }
}

/* |sum of a_r v_r|^2 of each word, as a^T G a where the products G of the regions are known. */
static void squared_norms(const Workspace *w, const Model *model, const Segment *s) {
    Product p = {
        .m = model->regions, .k = model->regions, .t = s->columns,
        .a = s->gram, .a_k = model->regions, .a_block = 1,
        .b = w->attention + s->column, .b_k = w->word_stride, .norm = w->norm + s->column,
    };
    begin_product(w, SGRAF_CONTEXT_NORM, s->gram ? p.m : model->embed, p.k, p.t);
    if (s->gram) {
        quadratic_form(&p);
        return;
    }
    p.m = p.a_k = model->embed;
    p.a = s->regions;
    context_norms(&p);
}

/* Attention (regions, words) of one segment, such that its contexts' norm is 1.
 *
 * The scores of the softmax are at most 9, so that their exponentials need no shift.
 */
static void attend(Panel *panel, const Group *group, const Segment *s) {
    Workspace *w = &panel->work;
    long regions = panel->model->regions, stride = w->word_stride;
    assert(s->column + whole_vectors(s->columns) <= w->word_stride);
    float *attention = w->attention + s->column;
    float *total = w->total + s->column, *norm = w->norm + s->column;
    raw_scores(w, panel->model, s);
    begin(w, SGRAF_WORD_ATTENTION, SGRAF_ARITHMETIC);
    Next next = next_image(panel, group, s);
    smooth(w->attention, stride, regions, group->column + s->first, s->end - s->first, &next);
    for (long t = 0; t < s->columns; t += VL) {
        vec sum = {0};
        for (long r = 0; r < regions; r++) {
            vec e = exponential(load(attention + r * stride + t));
            store(attention + r * stride + t, e);
            sum += e;
        }
        store(total + t, sum);
        store(norm + t, (vec){0});
    }
    squared_norms(w, panel->model, s);
    begin(w, SGRAF_CONTEXT_NORM, SGRAF_ARITHMETIC);
    for (long t = 0; t < s->columns; t++) {
        float squared = norm[t] < 0.0f ? 0.0f : norm[t]; /* rounding beside an all-zero image */
        norm[t] = 1.0f / (__builtin_sqrtf(squared) + EPSILON * total[t]);
    }
    for (long r = 0; r < regions; r++)
        for (long t = 0; t < s->columns; t++) attention[r * stride + t] *= norm[t];
}

/* (context - word)^2 of `depth` rows of embed, for the group's words first ... end - 1. */
static void squares(Panel *panel, const Group *group, long row, long depth, long first, long end) {
    Workspace *w = &panel->work;
    long embed = panel->model->embed;
    assert(0 < depth && depth <= DEPTH && end - first <= WIDE);
    for (long pair = 0; pair < group->end - group->first;) {
        Segment s = segment_at(panel, group, pair);
        pair = s.end;
        long from = s.column > first ? s.column : first;
        long to = s.column + s.columns < end ? s.column + s.columns : end;
        if (from >= to) continue;
        Product p = {
            .m = depth, .k = panel->model->regions, .t = to - from,
            .a = s.regions + row, .a_k = embed, .a_block = 1,
            .b = w->attention + from, .b_k = w->word_stride,
            .out = w->square + (from - first), .out_m = SQUARE_STRIDE,
            .minus = s.words + (from - s.column) + row * w->slot_stride, .minus_m = w->slot_stride,
        };
        begin_product(w, SGRAF_CONTEXT, p.m, p.k, p.t);
        square_product(&p);
    }
}

/* Local alignments (rows, words) before their norm: a few words at a time, `embed` in pieces. */
static void local_alignments(Panel *panel, const Group *group) {
    const Model *model = panel->model;
    Workspace *w = &panel->work;
    for (long pair = 0; pair < group->end - group->first;) {
        Segment s = segment_at(panel, group, pair);
        attend(panel, group, &s);
        pair = s.end;
    }
    for (long row = 0; row < model->embed; row += DEPTH)
        for (long first = 0; first < group->words; first += WIDE) {
            long end = first + WIDE < group->words ? first + WIDE : group->words;
            long depth = part_depth(row, model->embed);
            squares(panel, group, row, depth, first, end);
            Product p = {
                .m = w->rows, .t = end - first, .b = w->square, .b_k = SQUARE_STRIDE,
                .out = w->local + first, .out_m = w->node_stride,
            };
            begin_product(w, SGRAF_LOCAL, model->sim_dim, depth, p.t);
            layer_part(&model->local, row, model->embed, p, 0);
        }
}

#endif
