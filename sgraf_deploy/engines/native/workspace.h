/* Where a panel of pairs keeps what lies between its products. */
#ifndef SGRAF_WORKSPACE_H
#define SGRAF_WORKSPACE_H

#include <stddef.h>

#include "scorer.h"
#include "vector.h"

/* Chosen by timing at the paper's dimensions (36 regions, embed 1024, sim_dim 256) on a Xeon with
 * AVX-512, for a core's caches as Intel's servers have them since Sapphire Rapids: 48 KiB of data in
 * the first, 2 MiB in the second. An EPYC of Zen 4 has 32 KiB and 1 MiB; with GROUP_BYTES of 600 KiB
 * it takes 12 % longer (SGR, one caption of 8 words and 200 images) or 2 % (SAF): full groups count
 * for more than the cache does.
 */
enum {
    /* Words of a group, whose nodes are computed at once, and of the captions of a panel: at least
     * one caption, however long. 240 of sim_dim take 240 KiB; three such buffers are in use. */
    GROUP_WORDS = 240,
    GROUP_PAIRS = 32, /* pairs of a group */
    /* Of a group's images, nine of them. They stay in the second cache beside the embeddings of the
     * 120 words that the engine advises for a tile, 480 KiB. */
    GROUP_BYTES = 1400 << 10,
    PANEL_PAIRS = 64, /* pairs of a panel, whose global alignments are computed at once: 256 KiB */
    /* Of `embed` in one go: (DEPTH, WIDE) squares, 33 KiB of AVX-512, stay in the first cache while
     * the weights, 132 KiB for so many inputs, come past them from the second. */
    DEPTH = SGRAF_DEPTH,
    QUERIES = 240, /* whose edges are held at once: whole vectors */
    SQUARE_STRIDE = WIDE + VL
};

/* Every buffer is (rows, a stride of columns), and has columns to spare. */
typedef struct {
    long rows;     /* sim_dim in whole blocks */
    long slot_stride, word_stride, node_stride, pair_stride, edge_stride;
    float *slots;      /* (embed, words of the panel's captions) */
    float *difference; /* (embed, pairs), squared, of the globals */
    float *global;     /* (rows, pairs) */
    float *attention;  /* (regions, words) */
    float *norm, *total; /* (words) */
    float *square;     /* (DEPTH, WIDE) */
    float *nodes, *next; /* (rows, nodes) */
    float *local;      /* (rows, words), with the nodes' stride */
    float *message;    /* (rows, nodes), where the local alignments were */
    float *pair_nodes; /* (rows, nodes of a pair) */
    float *edges;      /* (nodes of a pair, queries); also a weight for each node of a pair */
    float *first, *query; /* (rows, pairs) */
    float *images;        /* of a group, or the globals of a panel, widened from float16 */
    Stages *stages;       /* null unless the run is profiled */
    long longest;         /* words of a caption */
} Workspace;

/* A stride for so many columns: an odd number of cache lines, so that the rows of a column do not
 * compete for the same places of a cache. */
static long spare(long columns) {
    long lines = (columns + WIDE + VL + 15) / 16;
    return 16 * (lines | 1);
}

/* The next multiple of a cache line's bytes. */
static uintptr_t line_from(uintptr_t address) { return (address + 63) & ~(uintptr_t)63; }

static float *take(uintptr_t *at, long rows, long columns) {
    float *found = (float *)*at;
    *at = line_from(*at + (size_t)(rows + 3 * MR) * (size_t)columns * sizeof(float));
    return found;
}

/* The numbers of the images that a group may have, or of the globals that a panel may have. */
static size_t widened_numbers(const Model *model) {
    size_t embed = (size_t)model->embed, image = (size_t)model->regions * embed;
    size_t most = GROUP_BYTES / sizeof(float), globals = PANEL_PAIRS * embed;
    size_t group = GROUP_PAIRS * image < most ? GROUP_PAIRS * image : most > image ? most : image;
    return group > globals ? group : globals;
}

/* Lay the buffers out from an address; returns what they take.
 *
 * `workspace.py` says how much that is at most: what is added here is added there.
 */
static size_t lay_out(Workspace *w, const Model *model, int32_t longest, uintptr_t base) {
    uintptr_t at = line_from(base);
    long words = GROUP_WORDS + (long)longest, nodes = (long)longest + 1;
    w->longest = longest;
    w->rows = (model->sim_dim + MR - 1) / MR * MR;
    w->slot_stride = spare(words);
    w->word_stride = spare(words);
    w->node_stride = spare(words + GROUP_PAIRS);
    w->pair_stride = spare(PANEL_PAIRS);
    w->edge_stride = spare(nodes < QUERIES ? nodes : QUERIES);
    w->slots = take(&at, model->embed, w->slot_stride);
    w->difference = take(&at, model->embed, w->pair_stride);
    w->global = take(&at, w->rows, w->pair_stride);
    w->attention = take(&at, model->regions, w->word_stride);
    w->norm = take(&at, 1, w->word_stride);
    w->total = take(&at, 1, w->word_stride);
    w->square = take(&at, DEPTH, SQUARE_STRIDE);
    w->nodes = take(&at, w->rows, w->node_stride);
    w->next = take(&at, w->rows, w->node_stride);
    w->local = w->message = take(&at, w->rows, w->node_stride);
    w->pair_nodes = take(&at, w->rows, spare(nodes));
    w->edges = take(&at, nodes, w->edge_stride);
    w->first = take(&at, w->rows, w->pair_stride);
    w->query = take(&at, w->rows, w->pair_stride);
    w->images = (float *)at; /* the last: memory that is not written is not taken */
    return line_from(at + widened_numbers(model) * sizeof(float)) - base;
}

#endif
