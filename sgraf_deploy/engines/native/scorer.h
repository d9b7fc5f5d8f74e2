/* The scorer's interface; axes and names as in the ONNX graphs `scorer` and `pair_scorer`.
 *
 * All arrays are float32 or int32, contiguous (an image's embeddings may be float16), and checked by the caller: indices in range, lengths
 * from 1 to `longest`, and all words among the rows. None that is written overlaps another. A debug build asserts what can be seen
 * of that, and what the functions in between take for granted. The weights of linear layers are packed by `sgraf_pack`, and as many biases as
 * packed outputs, the last ones 0; layers of one output are not packed.
 */
#ifndef SGRAF_SCORER_H
#define SGRAF_SCORER_H

#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))

enum {
    SGRAF_MAX_STEPS = 16,
    /* Weights are packed in parts of so many inputs, of these in blocks of so many outputs. */
    SGRAF_DEPTH = 132,
    SGRAF_BLOCK = 6
};

/* Instruction sets, the wider the later: what the architecture's oldest processors have, and more. */
enum { SGRAF_GENERIC, SGRAF_AVX2, SGRAF_AVX512 };

typedef struct {
    const float *weight, *bias;
} Linear;

typedef struct {
    int32_t instructions; /* a set that is built and that this processor runs */
    int32_t regions, embed, sim_dim;
    int32_t steps; /* of SGR; 0 for SAF and for an SGR of no steps */
    int32_t filtration_used;
    Linear local, global;
    Linear key[SGRAF_MAX_STEPS], update[SGRAF_MAX_STEPS];
    Linear filtration; /* one output: weight (inputs), bias (1) */
    Linear similarity; /* likewise */
} Model;

/* Embeddings are float32 or, where their flag is set, float16, which is widened image by image. */
typedef struct {
    const void *regions; /* (images, regions, embed) */
    const void *global;  /* (images, embed) */
    const float *gram;   /* (images, regions, regions), or null */
    int32_t half_regions, half_global;
} Images;

typedef struct {
    const float *words;     /* (rows, embed), with the words of a caption one after the other */
    const int32_t *offsets; /* (captions) row of a caption's first word */
    const float *global;    /* (captions, embed) */
    const int32_t *lengths; /* (captions) words */
    int32_t longest;        /* of the lengths, at least */
} Captions;

/* The pairs that are scored: all images x captions where the indices are null. */
typedef struct {
    int32_t images, captions;
    const int32_t *image_index, *caption_index;
    int64_t pairs;
} Pairs;

/* The stages of a run; `library.py` names them in this order. */
enum {
    SGRAF_REST, /* between the others: which pairs come next, logits into their places */
    SGRAF_WORDS, /* captions' words are transposed */
    SGRAF_ATTENTION,
    SGRAF_WORD_ATTENTION,
    SGRAF_CONTEXT_NORM,
    SGRAF_CONTEXT, /* and its squared difference to the words */
    SGRAF_LOCAL,
    SGRAF_GLOBAL,
    SGRAF_SGR,
    SGRAF_SAF,
    SGRAF_HEAD,
    SGRAF_STAGES
};

/* What is done in a stage; the last computes nothing. */
enum { SGRAF_PRODUCTS, SGRAF_ARITHMETIC, SGRAF_MOVES, SGRAF_KINDS };

/* Where the time of runs by one thread goes: all 0 before the first, but for the clock. */
typedef struct {
    int64_t (*clock)(void); /* in units of `spent`, never backwards */
    int64_t since;          /* when the stage that is going on began */
    int32_t stage, kind;
    int64_t spent[SGRAF_STAGES][SGRAF_KINDS];
    double flop[SGRAF_STAGES]; /* of products */
} Stages;

/* The instruction sets that this library was compiled for, a bit `1 << set` for each. */
PUBLIC int32_t sgraf_built(void);

/* The bytes of Model, Images, Captions, Pairs and Stages, in this order: a caller that knows others
 * was written for another version of this library. */
PUBLIC void sgraf_sizes(int32_t sizes[5]);

/* Those that this processor and its operating system run, built or not. */
PUBLIC int32_t sgraf_runnable(void);

/* Pack the weights (inputs, outputs) of a layer; returns how many numbers that makes.
 *
 * Only counts where `packed` is null.
 */
PUBLIC int64_t sgraf_pack(const float *weight, int64_t inputs, int64_t outputs, float *packed);

/* Bytes of `workspace` for captions of up to `longest` words. */
PUBLIC int64_t sgraf_workspace(const Model *model, int32_t longest);

/* Logits of the pairs in their order, image by image for all of them. */
PUBLIC void sgraf_score(const Model *model, const Images *images, const Captions *captions,
                        const Pairs *pairs, void *workspace, float *logits);

/* The same logits, to the bit; adds to `stages` where the time went. */
PUBLIC void sgraf_profile(const Model *model, const Images *images, const Captions *captions,
                          const Pairs *pairs, void *workspace, float *logits, Stages *stages);

/* A clock for it, in nanoseconds. */
PUBLIC int64_t sgraf_nanoseconds(void);

#endif
