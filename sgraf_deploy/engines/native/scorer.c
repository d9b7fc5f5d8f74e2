/* Logits of image-caption pairs on one core; compiled once for each instruction set. */
#include "scorer.h"

#include "reasoning.h"

#define JOIN(a, b) a##b
#define NAMED(name, suffix) JOIN(name, suffix)

/* The share of the lanes that is used, by the words and then by the nodes of so many pairs. */
static float filled(const Model *model, long words, long pairs) {
    long nodes = model->steps > 1 ? words + pairs : 0;
    return (float)(words + nodes) / (float)(whole_vectors(words) + whole_vectors(nodes));
}

/* As many pairs as fit: of their words, and of their images, which stay in the second cache.
 *
 * A few less where their words fill whole vectors better.
 */
static Group next_group(const Panel *panel, long first) {
    Group group = {.first = first, .end = first};
    long image = (long)panel->model->regions * panel->model->embed * (long)sizeof(float);
    long bytes = 0, count = 0, best = 1, place = -1;
    float most = 0.0f;
    for (; first + count < panel->pair_count && count < GROUP_PAIRS; count++) {
        const Pair *pair = &panel->pairs[first + count];
        if (count == 0 || pair->image != pair[-1].image) bytes += image, place++;
        long words = group.column[count] + panel->slots[pair->slot].length;
        if (count && (words > GROUP_WORDS || bytes > GROUP_BYTES)) break;
        group.column[count + 1] = words;
        group.place[count] = place;
        float share = filled(panel->model, words, count + 1);
        if (share >= most) best = count + 1, most = share;
    }
    if (2 * best < count) best = count;
    assert(best <= GROUP_PAIRS && (best == 1 || group.column[best] <= GROUP_WORDS));
    group.end = first + best;
    group.words = group.column[best];
    return group;
}

static void score_panel(Panel *panel, float *logits) {
    if (panel->pair_count == 0) return;
    global_alignments(panel);
    for (long first = 0; first < panel->pair_count;) {
        Group group = next_group(panel, first);
        widen_images(panel, &group);
        local_alignments(panel, &group);
        make_nodes(panel, &group);
        if (panel->model->filtration_used) filtrate(&panel->work, panel->model, &group);
        else reason(&panel->work, panel->model, &group);
        head(&panel->work, panel->model, &group, logits + first);
        begin(&panel->work, SGRAF_REST, SGRAF_MOVES);
        first = group.end;
    }
}

/* Pairs as they are listed; captions that follow themselves are transposed once. */
static void score_listed(Panel *panel, const Pairs *pairs, float *logits) {
    for (int64_t at = 0; at < pairs->pairs;) {
        int64_t first = at;
        panel->slot_count = panel->slot_columns = panel->pair_count = 0;
        for (; at < pairs->pairs && panel->pair_count < PANEL_PAIRS; at++) {
            assert(0 <= pairs->image_index[at] && pairs->image_index[at] < pairs->images);
            assert(0 <= pairs->caption_index[at] && pairs->caption_index[at] < pairs->captions);
            long slot = slot_of(panel, pairs->caption_index[at]);
            if (slot < 0) break;
            panel->pairs[panel->pair_count++] = (Pair){pairs->image_index[at], (int32_t)slot};
        }
        score_panel(panel, logits + first);
    }
}

/* Begin with no slots; rows are as short as the captions first ... end - 1 let them be. */
static void clear_slots(Panel *panel, int32_t first, int32_t end) {
    long columns = 0, needed = 0;
    for (int32_t caption = first; caption < end; caption++) {
        long words = panel->captions->lengths[caption], whole = whole_vectors(words);
        needed = columns + whole > needed ? columns + whole : needed;
        columns += words;
    }
    panel->slot_count = panel->slot_columns = 0;
    panel->work.slot_stride = 16 * ((needed + 15) / 16 | 1);
}

/* How many captions from `first` on have room side by side, at least one. */
static int32_t fitting_captions(const Captions *captions, int32_t first, int32_t end) {
    int32_t last = first + 1;
    long words = captions->lengths[first];
    while (last < end && last - first < GROUP_PAIRS && words + captions->lengths[last] <= GROUP_WORDS)
        words += captions->lengths[last++];
    return last;
}

/* All images x captions: as many captions as have room meet every image. */
static void score_all(Panel *panel, const Pairs *pairs, float *logits) {
    float found[PANEL_PAIRS];
    for (int32_t first = 0, end; first < pairs->captions; first = end) {
        end = fitting_captions(panel->captions, first, pairs->captions);
        clear_slots(panel, first, end);
        for (int32_t caption = first; caption < end; caption++) slot_of(panel, caption);
        int32_t width = end - first, height = PANEL_PAIRS / width;
        for (int32_t image = 0; image < pairs->images; image += height) {
            int32_t rows = pairs->images - image < height ? pairs->images - image : height;
            panel->pair_count = (long)rows * width;
            for (long pair = 0; pair < panel->pair_count; pair++)
                panel->pairs[pair] =
                    (Pair){image + (int32_t)(pair / width), (int32_t)(pair % width)};
            score_panel(panel, found);
            for (int32_t row = 0; row < rows; row++)
                memcpy(logits + (size_t)(image + row) * pairs->captions + first,
                       found + (size_t)row * width, (size_t)width * sizeof(float));
        }
    }
}

int64_t NAMED(sgraf_workspace_, ISA)(const Model *model, int32_t longest) {
    Workspace workspace;
    return (int64_t)(lay_out(&workspace, model, longest, 0) + sizeof(Panel) + 2 * 64);
}

void NAMED(sgraf_score_, ISA)(const Model *model, const Images *images, const Captions *captions,
                              const Pairs *pairs, void *workspace, float *logits,
                              Stages *stages) {
    assert(model->regions > 0 && model->embed > 0 && model->sim_dim > 0);
    assert(0 <= model->steps && model->steps <= (model->filtration_used ? 0 : SGRAF_MAX_STEPS));
    assert(!pairs->image_index == !pairs->caption_index);
    Panel *panel = (Panel *)line_from((uintptr_t)workspace);
    *panel = (Panel){.model = model, .images = images, .captions = captions};
    lay_out(&panel->work, model, captions->longest, (uintptr_t)(panel + 1));
    panel->work.stages = stages;
    if (stages) start_stages(stages);
    if (pairs->image_index) score_listed(panel, pairs, logits);
    else score_all(panel, pairs, logits);
    begin(&panel->work, SGRAF_REST, SGRAF_MOVES);
}
