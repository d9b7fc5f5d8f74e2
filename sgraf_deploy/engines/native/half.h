/* float16 numbers, which images may be stored in, become float32. */
#ifndef SGRAF_HALF_H
#define SGRAF_HALF_H

#include <stddef.h>
#include <string.h>

#include "vector.h"

#if defined(__F16C__) && defined(__AVX__)
#include <immintrin.h>
#endif

typedef uint16_t hvec __attribute__((vector_size(2 * VL), aligned(2), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * VL), aligned(4), may_alias));

/* VL numbers, without the processor's instruction for it. */
INLINE vec widened_by_bits(const uint16_t *p) {
    const uint32_t rebias = 112u << 23, least = 113u << 23;
    uvec bits = __builtin_convertvector(*(const hvec *)p, uvec);
    uvec magnitude = (bits & 0x7fffu) << 13, exponent = magnitude & (0x1fu << 23);
    uvec normal = magnitude + rebias;
    /* Below the smallest normal number: that number and so much more, less that number. */
    uvec lowest = (uvec){0} + least;
    vec small = (vec)(magnitude + least) - (vec)lowest;
    vec x = blend((ivec)(exponent == 0u), small, (vec)normal);
    x = blend((ivec)(exponent == 0x1fu << 23), (vec)(normal + rebias), x); /* infinity, NaN */
    return (vec)((uvec)x | (bits & 0x8000u) << 16);
}

INLINE vec widened(const uint16_t *p) {
#if defined(__AVX512F__)
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)p));
#elif defined(__F16C__) && defined(__AVX__)
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)p));
#else
    return widened_by_bits(p);
#endif
}

/* to (count) = from (count); nothing is read or written past the end. */
static void widen(const uint16_t *restrict from, size_t count, float *restrict to) {
    size_t k = 0;
    for (; k + VL <= count; k += VL) store(to + k, widened(from + k));
    if (k == count) return;
    uint16_t rest[VL] = {0};
    float last[VL];
    memcpy(rest, from + k, (count - k) * sizeof(uint16_t));
    store(last, widened(rest));
    memcpy(to + k, last, (count - k) * sizeof(float));
}

#endif
