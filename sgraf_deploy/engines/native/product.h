/* Matrix products: out[m][t] = sum over k of a(m, k) b[k][t], vectors along t.
 *
 * `a` is read one number at a time and `b` in vectors, so that words, nodes and pairs lie along t in
 * every product of the model, and what one product writes the next one reads as it is. Vectors may
 * reach past the last column: every buffer has WIDE columns to spare, and what lands there is
 * overwritten or ignored.
 */
#ifndef SGRAF_PRODUCT_H
#define SGRAF_PRODUCT_H

#include "vector.h"

typedef enum {
    SET,       /* out = a b */
    LEAKY,     /* out = leaky_relu(a b, 0.1) */
    BIAS,      /* out = a b + bias[m] */
    RELU,      /* out = max(a b + bias[m], 0) */
    ADD,       /* out = out + a b */
    ADD_LEAKY, /* out = leaky_relu(out + a b, 0.1) */
    ADD_RELU,  /* out = max(out + a b, 0) */
    SQUARE,    /* out = (minus[m][t] - a b)^2 */
    QUADRATIC, /* norm[t] += sum over m of (a b) b[m][t] */
    SUM_SQUARE /* norm[t] += sum over m of (a b)^2 */
} Finish;

typedef struct {
    long m, k, t;
    const float *a;
    long a_m, a_k;  /* a(m, k) = a[m * a_m + k * a_k] inside a block of MR rows; along k a_k is 1,
                       else a_m, and left out */
    long a_block;   /* from a row of a to the next where blocks begin, m * a_block */
    const float *b;
    long b_k;
    float *out;
    long out_m;
    const float *bias, *minus;
    long minus_m;
    float *norm;
} Product;

enum { MOST = 3, AHEAD = 192 }; /* blocks of rows at a time; numbers that are asked for early */

/* One row of sums at its end; `b` is read by QUADRATIC alone. */
INLINE void finish(const int nv, const Finish how, const vec sum[NV], float *restrict out,
                   const float *restrict b, float *restrict norm) {
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++) {
        vec x = sum[j];
        if (how == RELU || how == ADD_RELU) x = blend(x > 0.0f, x, x * 0.0f); /* a NaN stays one */
        if (how == LEAKY || how == ADD_LEAKY) x = blend(x > 0.0f, x, x * 0.1f);
        if (how == SQUARE) x *= x;
        if (how == QUADRATIC || how == SUM_SQUARE) {
            x *= how == SUM_SQUARE ? x : load(b + j * VL);
            store(norm + j * VL, load(norm + j * VL) + x);
        } else {
            store(out + j * VL, x);
        }
    }
}

INLINE void block(const int mr, const int nv, const int along_k, const Finish how, const Product p,
                  long m, long t) {
    vec sum[MOST * MR][NV];
    float *restrict out = p.out + m * p.out_m + t;
#pragma GCC unroll 18
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            sum[i][j] = (vec){0};
            if (how == BIAS || how == RELU) sum[i][j] = splat(p.bias[m + i]);
            if (how == SQUARE) sum[i][j] = load(p.minus + (m + i) * p.minus_m + t + j * VL);
            if (how == ADD || how == ADD_LEAKY || how == ADD_RELU) sum[i][j] = load(out + j * VL);
        }
        out += p.out_m;
    }
    const float *restrict a = p.a + m * p.a_block, *restrict b = p.b + t;
    const float *rows[MOST] = {a, a + MR * p.a_block, a + 2 * MR * p.a_block};
    const long a_m = along_k ? p.a_m : 1, a_k = along_k ? 1 : p.a_k;
    for (long k = p.k; k > 0; k--) {
        vec row[NV];
        if (!along_k) __builtin_prefetch(rows[0] + AHEAD); /* weights come from far away */
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) row[j] = load(b + j * VL);
#pragma GCC unroll 18
        for (int i = 0; i < mr; i++) {
            vec x = splat(rows[i / MR][i % MR * a_m]);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++)
                sum[i][j] = how == SQUARE ? sum[i][j] - x * row[j] : sum[i][j] + x * row[j];
        }
        for (int i = 0; i < MOST; i++) rows[i] += a_k;
        b += p.b_k;
    }
    b = p.b + m * p.b_k + t;
    out = p.out + m * p.out_m + t;
#pragma GCC unroll 18
    for (int i = 0; i < mr; i++) {
        finish(nv, how, sum[i], out, b, p.norm + t);
        out += p.out_m;
        b += p.b_k;
    }
}

/* All rows of a few columns: `b`'s stay in the first cache, `a` streams through. */
INLINE void columns(const int nv, const int along_k, const Finish how, const Product p, long t) {
    /* So few sums of MR rows would wait for each other. */
    const int several = MR * (4 * nv <= NV && how == SET ? 3 : 2 * nv <= NV ? 2 : 1);
    long m = 0;
    for (; m + several <= p.m; m += several) block(several, nv, along_k, how, p, m, t);
    if (several == 3 * MR && m + 2 * MR <= p.m) block(2 * MR, nv, along_k, how, p, m, t), m += 2 * MR;
    if (several > MR && m + MR <= p.m) block(MR, nv, along_k, how, p, m, t), m += MR;
    for (; m + 2 <= p.m; m += 2) block(2, nv, along_k, how, p, m, t);
    if (m < p.m) block(1, nv, along_k, how, p, m, t);
}

/* What a product takes for granted, asserted in a debug build; that `out` and `norm` lie outside
 * `a`, `b` and `minus` is told to the compiler below. */
INLINE void check_product(const int along_k, const Finish how, const Product *p) {
    const int normed = how == QUADRATIC || how == SUM_SQUARE;
    const long row = whole_vectors(p->t); /* what is read and written of a row */
    assert(p->m > 0 && p->k > 0 && p->t > 0);
    assert(p->a && p->b && (normed ? p->norm : p->out));
    assert((along_k ? p->a_k : p->a_m) == 0); /* and is 1 */
    assert(p->m % MR == 0 || p->m == 1 || p->a_block == (along_k ? p->a_m : 1)); /* no half block */
    assert(row <= p->b_k || p->k == 1);
    assert(normed || row <= p->out_m || p->m == 1);
    assert(p->bias || (how != BIAS && how != RELU));
    assert(how != SQUARE || (p->minus && row <= p->minus_m));
    (void)along_k, (void)normed, (void)row; /* without asserts */
}

INLINE void multiply(const int along_k, const Finish how, const Product *whole) {
    check_product(along_k, how, whole);
    const Product p = *whole; /* what is stored cannot change a copy */
    long t = 0, left = whole_vectors(p.t) / VL;
    while (left > 0) {
        /* Of one vector too many, three and two keep more registers busy than four and one. */
        long now = left == NV + 1 && NV > 2 ? 3 : left < NV ? left : NV;
        if (now == NV) columns(NV, along_k, how, p, t);
        else if (now == 3) columns(NV < 3 ? NV : 3, along_k, how, p, t);
        else if (now == 2) columns(2, along_k, how, p, t);
        else columns(1, along_k, how, p, t);
        t += now * VL, left -= now;
    }
}

#endif
