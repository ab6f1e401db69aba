/* group.c - see group.h. A shortest path over the sorted lengths: best[i] is the least cost of
 * the first i sequences, reached by a last group j..i-1 from best[j]. */
#include "backend/trt/group.h"

#include <stdlib.h>
#include <string.h>

enum {
    LAUNCH =
        512,  /* tokens: what a run costs beside its tokens; one pair of 128 takes as long as 600
                     to 800 more tokens of a full batch do on the models this is for */
    ROUND = 8 /* matrix units like multiples, and fewer shapes are fewer compilations */
};

int32_t rr__trt_longest(const rr__trt_profile *p, int32_t n_profile) {
    int32_t most = 0;

    for (int32_t i = 0; i < n_profile; i++)
        most = p[i].max[1] > most ? p[i].max[1] : most;
    return most;
}

size_t rr__trt_cells(const rr__trt_profile *p, int32_t n_profile) {
    size_t most = 0;

    for (int32_t i = 0; i < n_profile; i++) {
        const size_t n = (size_t)p[i].max[0] * (size_t)p[i].max[1];

        most = n > most ? n : most;
    }
    return most;
}

int32_t rr__trt_most_rows(const rr__trt_profile *p, int32_t n_profile) {
    int32_t most = 0;

    for (int32_t i = 0; i < n_profile; i++)
        most = p[i].max[0] > most ? p[i].max[0] : most;
    return most;
}

rr_status rr__trt_groups_open(rr__trt_groups *g, int32_t max_seqs, const rr__trt_profile *p,
                              int32_t n_profile, rr_error *err) {
    const size_t n = (size_t)max_seqs + 1;

    *g = (rr__trt_groups){.max_seqs = max_seqs, .max_len = rr__trt_longest(p, n_profile)};
    g->order = calloc(n, sizeof *g->order);
    g->group = calloc(n, sizeof *g->group);
    g->best = calloc(n, sizeof *g->best);
    g->sum = calloc(n, sizeof *g->sum);
    g->last = calloc(n, sizeof *g->last);
    g->count = calloc((size_t)g->max_len + 2, sizeof *g->count);
    if (g->order && g->group && g->best && g->sum && g->last && g->count)
        return RR_OK;
    rr__trt_groups_close(g);
    return rr__fail(err, RR_E_NOMEM, "trt: groups of %d sequences", (int)max_seqs);
}

void rr__trt_groups_close(rr__trt_groups *g) {
    free(g->order);
    free(g->group);
    free(g->best);
    free(g->sum);
    free(g->last);
    free(g->count);
    *g = (rr__trt_groups){.n_group = 0};
}

/* Shortest first, equal lengths in their order. */
static void sort(rr__trt_groups *g, const int32_t *cu, int32_t n) {
    memset(g->count, 0, ((size_t)g->max_len + 2) * sizeof *g->count);
    for (int32_t i = 0; i < n; i++)
        g->count[cu[i + 1] - cu[i] + 1]++;
    for (int32_t l = 1; l <= g->max_len; l++)
        g->count[l + 1] += g->count[l];
    for (int32_t i = 0; i < n; i++)
        g->order[g->count[cu[i + 1] - cu[i]]++] = i;
}

static int64_t distance(int64_t a, int64_t b) {
    return a > b ? a - b : b - a;
}

/* The profile in which n sequences of at most len tokens cost least, the one tuned nearest to it if
 * several do; the cost, or -1 if none takes them. */
static int64_t fit(const rr__trt_profile *p, int32_t n_profile, int32_t n, int32_t len,
                   rr__trt_group *out) {
    int64_t least = -1, near = 0;

    for (int32_t i = 0; i < n_profile; i++) {
        int32_t rows = n > p[i].min[0] ? n : p[i].min[0];
        int32_t longest = (len + ROUND - 1) / ROUND * ROUND;
        int64_t cells, off;

        if (n > p[i].max[0] || len > p[i].max[1])
            continue;
        longest = longest < p[i].max[1] ? longest : p[i].max[1];
        longest = longest > p[i].min[1] ? longest : p[i].min[1];
        cells = (int64_t)rows * longest;
        off = distance(cells, (int64_t)p[i].opt[0] * p[i].opt[1]);
        if (least < 0 || cells < least || (cells == least && off < near)) {
            least = cells;
            near = off;
            *out = (rr__trt_group){0, n, i, rows, longest};
        }
    }
    return least < 0 ? -1 : least + LAUNCH;
}

rr_status rr__trt_groups_plan(rr__trt_groups *g, const int32_t *cu, int32_t n,
                              const rr__trt_profile *p, int32_t n_profile, rr_error *err) {
    const int32_t rows = rr__trt_most_rows(p, n_profile);

    if (n < 1 || n > g->max_seqs)
        return rr__fail(err, RR_E_TOO_LARGE, "trt: %d sequences; planned for %d", (int)n,
                        (int)g->max_seqs);
    for (int32_t i = 0; i < n; i++)
        if (cu[i + 1] - cu[i] > g->max_len)
            return rr__fail(err, RR_E_TOO_LARGE,
                            "trt: a pair of %d tokens; the engine's profiles take %d",
                            (int)(cu[i + 1] - cu[i]), (int)g->max_len);
    sort(g, cu, n);
    g->best[0] = g->sum[0] = 0;
    for (int32_t i = 1; i <= n; i++) {
        const int32_t longest = cu[g->order[i - 1] + 1] - cu[g->order[i - 1]];

        g->sum[i] = g->sum[i - 1] + longest;
        g->best[i] = -1;
        for (int32_t j = i - 1; j >= 0 && i - j <= rows; j--) {
            rr__trt_group one;
            int64_t       cost;

            /* What stands before costs at least its tokens, and the bound only rises from here. */
            if (g->best[i] >= 0 && g->sum[j] + (int64_t)(i - j) * longest + LAUNCH >= g->best[i])
                break;
            cost = fit(p, n_profile, i - j, longest, &one);
            if (cost < 0 || (g->best[i] >= 0 && g->best[j] + cost >= g->best[i]))
                continue;
            g->best[i] = g->best[j] + cost;
            g->last[i] = one;
            g->last[i].first = j;
        }
    }
    g->n_group = 0;
    for (int32_t i = n; i > 0; i = g->last[i].first)
        g->group[g->n_group++] = g->last[i];
    return RR_OK;
}
