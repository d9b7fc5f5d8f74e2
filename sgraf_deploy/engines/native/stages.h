/* Where a run's time goes: each moment belongs to the stage that began last.
 *
 * A run that nobody profiles tests one pointer where a stage begins, never inside a product.
 */
#ifndef SGRAF_STAGES_H
#define SGRAF_STAGES_H

#include "workspace.h"

/* A run begins: what is between the stages. */
static void start_stages(Stages *stages) {
    stages->since = stages->clock();
    stages->stage = SGRAF_REST;
    stages->kind = SGRAF_MOVES;
}

static __attribute__((noinline, cold)) void change_stage(Stages *stages, int stage, int kind) {
    int64_t now = stages->clock();
    stages->spent[stages->stage][stages->kind] += now - stages->since;
    stages->since = now;
    stages->stage = stage;
    stages->kind = kind;
}

static __attribute__((noinline, cold)) void add_flop(Stages *stages, int stage, double flop) {
    stages->flop[stage] += flop;
}

/* From here on it is this stage, and work of this kind. */
INLINE void begin(const Workspace *w, int stage, int kind) {
    if (__builtin_expect(w->stages != 0, 0)) change_stage(w->stages, stage, kind);
}

/* From here on it is a stage's product (m, k) (k, t), counted without what fills up blocks. */
INLINE void begin_product(const Workspace *w, int stage, long m, long k, long t) {
    if (__builtin_expect(w->stages == 0, 1)) return;
    add_flop(w->stages, stage, 2.0 * (double)m * (double)k * (double)t);
    change_stage(w->stages, stage, SGRAF_PRODUCTS);
}

#endif
