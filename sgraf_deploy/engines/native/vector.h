/* Vectors of VL floats, as wide as the instruction set that this is compiled for. */
#ifndef SGRAF_VECTOR_H
#define SGRAF_VECTOR_H

#include <assert.h>
#include <stdint.h>

#include "scorer.h"

/* A product keeps MR x NV sums in registers, NV vectors of a row of b, and one number of a in every
 * lane; x86 before FMA also what a product is before it is added.
 */
#if defined(__AVX512F__)
enum { VL = 16, NV = 4 }; /* 24 + 4 + 1 = 29 of 32 registers */
#elif defined(__AVX__)
enum { VL = 8, NV = 2 };  /* 12 + 2 + 1 = 15 of 16 */
#elif defined(__aarch64__)
enum { VL = 4, NV = 4 };  /* 24 + 4 + 1 = 29 of 32 */
#else
enum { VL = 4, NV = 2 };  /* 12 + 2 + 1 + 1 = 16 of 16 */
#endif

enum { MR = SGRAF_BLOCK, WIDE = NV * VL };

/* Of a float's alignment only: columns of a pair begin anywhere. */
typedef float vec __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VL), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

/* So many columns, and what fills the last vector. */
INLINE long whole_vectors(long columns) { return (columns + VL - 1) / VL * VL; }

INLINE vec load(const float *p) { return *(const vec *)p; }

INLINE void store(float *p, vec x) { *(vec *)p = x; }

INLINE vec splat(float x) { return x - (vec){0}; }

/* a where the mask is set, else b. */
INLINE vec blend(ivec mask, vec a, vec b) {
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

/* x in the first `count` lanes, 0 in the rest, whatever was there. */
INLINE vec first_lanes(vec x, long count) {
    ivec lane;
    for (int i = 0; i < VL; i++) lane[i] = i;
    return (vec)((lane < (int32_t)(count < VL ? count : VL)) & (ivec)x);
}

/* Rows become columns: halves change places, then quarters, and so on. */
INLINE void transpose_square(vec x[VL]) {
#if defined(__clang__) /* which shuffles by constants alone */
    float from[VL][VL];
    for (int i = 0; i < VL; i++) store(from[i], x[i]);
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < VL; j++) x[i][j] = from[j][i];
#else
    ivec lane;
    for (int i = 0; i < VL; i++) lane[i] = i;
#pragma GCC unroll 4
    for (int side = VL / 2; side >= 1; side /= 2) {
        ivec upper = (lane & side) != 0;
        ivec low = lane + (upper & (VL - side)), high = lane + side + (upper & (VL - side));
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            if (i & side) continue;
            vec a = x[i], b = x[i + side];
            x[i] = __builtin_shuffle(a, b, low);
            x[i + side] = __builtin_shuffle(a, b, high);
        }
    }
#endif
}

/* exp(x), relative error below 2e-7; 0 far below, a NaN stays one. */
INLINE vec exponential(vec x) {
    x = blend(x < -87.0f, splat(-87.0f), x);
    x = blend(x > 88.0f, splat(88.0f), x);
    vec scaled = x * 1.44269504088896341f;
    vec half = blend(scaled < 0.0f, splat(-0.5f), splat(0.5f));
    ivec power = __builtin_convertvector(scaled + half, ivec);
    vec n = __builtin_convertvector(power, vec);
    vec r = x - n * 0.693359375f;
    r += n * 2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec bits = (power + 127) << 23;
    return p * (vec)bits;
}

#endif
