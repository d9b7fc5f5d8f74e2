/* Chooses among the scorers that were compiled, and packs weights for all of them. */
#include "scorer.h"

#define DECLARE(isa)                                                                           \
    int64_t sgraf_workspace_##isa(const Model *, int32_t);                                     \
    void sgraf_score_##isa(const Model *, const Images *, const Captions *, const Pairs *,     \
                           void *, float *);

#if defined(__x86_64__)
DECLARE(avx512)
DECLARE(avx2)
#define CALL(name, model, ...)                                                          \
    ((model)->instructions >= SGRAF_AVX512 ? name##_avx512(model, __VA_ARGS__)          \
                                           : name##_avx2(model, __VA_ARGS__))
#define HAS(feature) __builtin_cpu_supports(feature)

int32_t sgraf_widest(void) {
    if (!HAS("avx2") || !HAS("fma") || !HAS("bmi") || !HAS("bmi2")) return SGRAF_NONE;
    if (HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl"))
        return SGRAF_AVX512;
    return SGRAF_AVX2;
}
#else
DECLARE(generic)
#define CALL(name, ...) name##_generic(__VA_ARGS__)

int32_t sgraf_widest(void) { return SGRAF_GENERIC; }
#endif

int64_t sgraf_pack(const float *weight, int64_t inputs, int64_t outputs, float *packed) {
    int64_t rows = (outputs + SGRAF_BLOCK - 1) / SGRAF_BLOCK * SGRAF_BLOCK;
    for (int64_t part = 0; packed && part < inputs; part += SGRAF_DEPTH)
        for (int64_t m = 0; m < rows; m += SGRAF_BLOCK)
            for (int64_t k = part; k < inputs && k < part + SGRAF_DEPTH; k++)
                for (int64_t i = m; i < m + SGRAF_BLOCK; i++)
                    *packed++ = i < outputs ? weight[k * outputs + i] : 0.0f;
    return inputs * rows;
}

int64_t sgraf_workspace(const Model *model, int32_t longest) {
    return CALL(sgraf_workspace, model, longest);
}

void sgraf_score(const Model *model, const Images *images, const Captions *captions,
                 const Pairs *pairs, void *workspace, float *logits) {
    CALL(sgraf_score, model, images, captions, pairs, workspace, logits);
}
