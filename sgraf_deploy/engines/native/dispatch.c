/* Chooses among the scorers that were compiled, and packs weights for all of them.
 *
 * HAVE_AVX2 and HAVE_AVX512 say which ones there are beside the generic one.
 */
#include <assert.h>
#include <time.h>

#include "scorer.h"

#define DECLARE(isa)                                                                           \
    int64_t sgraf_workspace_##isa(const Model *, int32_t);                                     \
    void sgraf_score_##isa(const Model *, const Images *, const Captions *, const Pairs *,     \
                           void *, float *, Stages *);

typedef struct {
    int64_t (*workspace)(const Model *, int32_t);
    void (*score)(const Model *, const Images *, const Captions *, const Pairs *, void *, float *,
                  Stages *);
} Scorer;

DECLARE(generic)
#ifdef HAVE_AVX2
DECLARE(avx2)
#endif
#ifdef HAVE_AVX512
DECLARE(avx512)
#endif

static const Scorer scorers[] = {
    [SGRAF_GENERIC] = {sgraf_workspace_generic, sgraf_score_generic},
#ifdef HAVE_AVX2
    [SGRAF_AVX2] = {sgraf_workspace_avx2, sgraf_score_avx2},
#endif
#ifdef HAVE_AVX512
    [SGRAF_AVX512] = {sgraf_workspace_avx512, sgraf_score_avx512},
#endif
};

/* Those of a model; its instruction set is checked when the model is made. */
static const Scorer *scorer_of(const Model *model) {
    assert((sgraf_built() & sgraf_runnable()) >> model->instructions & 1);
    return &scorers[model->instructions];
}

int32_t sgraf_built(void) {
    int32_t found = 0;
    for (uint32_t set = 0; set < sizeof(scorers) / sizeof(scorers[0]); set++)
        if (scorers[set].score) found |= 1 << set;
    return found;
}

void sgraf_sizes(int32_t sizes[5]) {
    const size_t all[] = {sizeof(Model), sizeof(Images), sizeof(Captions), sizeof(Pairs),
                          sizeof(Stages)};
    for (int i = 0; i < 5; i++) sizes[i] = (int32_t)all[i];
}

int32_t sgraf_runnable(void) {
    int32_t found = 1 << SGRAF_GENERIC;
#if defined(__x86_64__)
#define HAS(feature) __builtin_cpu_supports(feature)
    if (!HAS("avx2") || !HAS("fma") || !HAS("bmi") || !HAS("bmi2")) return found;
    found |= 1 << SGRAF_AVX2;
    if (HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl"))
        found |= 1 << SGRAF_AVX512;
#endif
    return found;
}

int64_t sgraf_pack(const float *restrict weight, int64_t inputs, int64_t outputs,
                   float *restrict packed) {
    int64_t rows = (outputs + SGRAF_BLOCK - 1) / SGRAF_BLOCK * SGRAF_BLOCK;
    for (int64_t part = 0; packed && part < inputs; part += SGRAF_DEPTH)
        for (int64_t m = 0; m < rows; m += SGRAF_BLOCK)
            for (int64_t k = part; k < inputs && k < part + SGRAF_DEPTH; k++)
                for (int64_t i = m; i < m + SGRAF_BLOCK; i++)
                    *packed++ = i < outputs ? weight[k * outputs + i] : 0.0f;
    return inputs * rows;
}

int64_t sgraf_workspace(const Model *model, int32_t longest) {
    assert(longest > 0);
    return scorer_of(model)->workspace(model, longest);
}

void sgraf_score(const Model *model, const Images *images, const Captions *captions,
                 const Pairs *pairs, void *workspace, float *logits) {
    sgraf_profile(model, images, captions, pairs, workspace, logits, 0);
}

void sgraf_profile(const Model *model, const Images *images, const Captions *captions,
                   const Pairs *pairs, void *workspace, float *logits, Stages *stages) {
    scorer_of(model)->score(model, images, captions, pairs, workspace, logits, stages);
}

int64_t sgraf_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
