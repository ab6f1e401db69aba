/* test_group.c - a ragged batch as padded groups: every sequence once, nothing beyond a profile, and
 * never dearer than the least of all ways to cut it. */
#include "backend/trt/group.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 600, LAUNCH = 512 };

/* The default of rerank build. */
static const rr__trt_profile usual[] = {{{1, 1}, {1, 128}, {1, 512}},
                                        {{1, 1}, {8, 512}, {8, 512}},
                                        {{1, 1}, {16, 512}, {16, 512}},
                                        {{1, 1}, {100, 180}, {100, 512}}};

static uint32_t seed;
static int32_t  draw(int32_t n) {
     seed = seed * 1664525u + 1013904223u;
     return (int32_t)((seed >> 8) % (uint32_t)n);
}

static int32_t round8(int32_t v) {
    return (v + 7) / 8 * 8;
}

/* What the plan costs, by its own definition, after checking every promise of it. */
static int64_t check(const rr__trt_groups *g, const int32_t *cu, int32_t n,
                     const rr__trt_profile *p, int32_t n_profile) {
    char    seen[MOST] = {0};
    int64_t cost = 0;
    int32_t total = 0;

    for (int32_t i = 0; i < g->n_group; i++) {
        const rr__trt_group   *x = &g->group[i];
        const rr__trt_profile *q = &p[x->profile];

        cr_assert(x->profile >= 0 && x->profile < n_profile);
        cr_assert(x->n >= 1 && x->n <= x->rows && x->first >= 0 && x->first + x->n <= n);
        cr_assert(x->rows >= q->min[0] && x->rows <= q->max[0], "%d rows", x->rows);
        cr_assert(x->len >= q->min[1] && x->len <= q->max[1], "%d long", x->len);
        for (int32_t k = 0; k < x->n; k++) {
            int32_t s = g->order[x->first + k];

            cr_assert(s >= 0 && s < n && !seen[s], "sequence %d twice", s);
            seen[s] = 1;
            cr_assert(cu[s + 1] - cu[s] <= x->len);
        }
        total += x->n;
        cost += (int64_t)x->rows * x->len + LAUNCH;
    }
    cr_assert_eq(total, n);
    return cost;
}

static void lengths(int32_t *cu, const int32_t *len, int32_t n) {
    cu[0] = 0;
    for (int32_t i = 0; i < n; i++)
        cu[i + 1] = cu[i] + len[i];
}

static rr__trt_groups plan(const int32_t *cu, int32_t n, const rr__trt_profile *p,
                           int32_t n_profile) {
    rr__trt_groups g;
    rr_error       err = {0};

    cr_assert_eq(rr__trt_groups_open(&g, MOST, p, n_profile, &err), RR_OK);
    cr_assert_eq(rr__trt_groups_plan(&g, cu, n, p, n_profile, &err), RR_OK, "%s", err.text);
    return g;
}

Test(group, one_pair_takes_the_profile_tuned_for_it) {
    int32_t        cu[2] = {0, 123};
    rr__trt_groups g = plan(cu, 1, usual, 4);

    cr_assert_eq(g.n_group, 1);
    cr_assert_eq(g.group[0].profile, 0);
    cr_assert(g.group[0].rows == 1 && g.group[0].len == 128);
    rr__trt_groups_close(&g);
}

Test(group, eight_long_pairs_take_theirs) {
    int32_t        cu[9];
    rr__trt_groups g;

    for (int32_t i = 0; i <= 8; i++)
        cu[i] = 512 * i;
    g = plan(cu, 8, usual, 4);
    cr_assert_eq(g.n_group, 1);
    cr_assert_eq(g.group[0].profile, 1);
    rr__trt_groups_close(&g);
}

/* 100 ragged pairs of 8 to 512 tokens: padding to the longest would cost more than twice their tokens. */
Test(group, padding_of_a_ragged_hundred_is_small) {
    int32_t        len[100], cu[101], tokens = 0;
    rr__trt_groups g;
    int64_t        padded = 0;

    seed = 1;
    for (int32_t i = 0; i < 100; i++) {
        len[i] = 8 + draw(100) * draw(100) * 504 / (99 * 99);
        tokens += len[i];
    }
    lengths(cu, len, 100);
    g = plan(cu, 100, usual, 4);
    check(&g, cu, 100, usual, 4);
    for (int32_t i = 0; i < g.n_group; i++)
        padded += (int64_t)g.group[i].rows * g.group[i].len;
    cr_assert(padded * 100 <= tokens * 125ll, "%lld for %d tokens", (long long)padded, tokens);
    cr_assert(g.n_group >= 2 && g.n_group <= 12, "%d groups", g.n_group);
    rr__trt_groups_close(&g);
}

/* Random lengths against random profiles: all promises, and the least cost by plain recursion over
 * every cut of the sorted lengths. */
static int64_t least(const int32_t *sorted, int32_t n, const rr__trt_profile *p, int32_t n_profile,
                     int64_t *memo) {
    if (n == 0)
        return 0;
    if (memo[n])
        return memo[n];
    for (int32_t k = 1; k <= n; k++)
        for (int32_t i = 0; i < n_profile; i++) {
            int32_t rows = k > p[i].min[0] ? k : p[i].min[0], len = round8(sorted[n - 1]);
            int64_t cost;

            if (k > p[i].max[0] || sorted[n - 1] > p[i].max[1])
                continue;
            len = len < p[i].max[1] ? len : p[i].max[1];
            len = len > p[i].min[1] ? len : p[i].min[1];
            cost = (int64_t)rows * len + LAUNCH + least(sorted, n - k, p, n_profile, memo);
            memo[n] = memo[n] && memo[n] <= cost ? memo[n] : cost;
        }
    return memo[n];
}

static int by_value(const void *a, const void *b) {
    return *(const int32_t *)a - *(const int32_t *)b;
}

Test(group, random_batches_are_cut_at_least_cost) {
    seed = 7;
    for (int round = 0; round < 400; round++) {
        rr__trt_profile p[4];
        int32_t         n_profile = 1 + draw(4), n = 1 + draw(60), longest;
        int32_t         len[60], cu[61];
        int64_t         memo[61] = {0}, cost;
        rr__trt_groups  g;

        for (int32_t i = 0; i < n_profile; i++) {
            int32_t *lo = p[i].min, *mid = p[i].opt, *hi = p[i].max;

            lo[0] = 1 + draw(4), lo[1] = 1 + draw(40);
            mid[0] = lo[0] + draw(10), mid[1] = lo[1] + draw(100);
            hi[0] = mid[0] + draw(20), hi[1] = mid[1] + draw(300);
        }
        longest = rr__trt_longest(p, n_profile);
        for (int32_t i = 0; i < n; i++)
            len[i] = 1 + draw(draw(3) ? longest : longest / 8 + 1);
        lengths(cu, len, n);
        g = plan(cu, n, p, n_profile);
        cost = check(&g, cu, n, p, n_profile);
        qsort(len, (size_t)n, sizeof *len, by_value);
        cr_assert_eq(cost, least(len, n, p, n_profile, memo), "round %d", round);
        rr__trt_groups_close(&g);
    }
}

Test(group, the_same_batch_is_cut_the_same_way) {
    int32_t        len[MOST], cu[MOST + 1];
    rr__trt_groups g;
    rr__trt_group  first[MOST];
    int32_t        n_first;

    seed = 3;
    for (int32_t i = 0; i < MOST; i++)
        len[i] = 1 + draw(512);
    lengths(cu, len, MOST);
    g = plan(cu, MOST, usual, 4);
    check(&g, cu, MOST, usual, 4);
    n_first = g.n_group;
    memcpy(first, g.group, (size_t)n_first * sizeof *first);
    cr_assert_eq(rr__trt_groups_plan(&g, cu, 1, usual, 4, NULL), RR_OK); /* leaves nothing behind */
    cr_assert_eq(rr__trt_groups_plan(&g, cu, MOST, usual, 4, NULL), RR_OK);
    cr_assert_eq(g.n_group, n_first);
    cr_assert_arr_eq(g.group, first, (size_t)n_first * sizeof *first);
    rr__trt_groups_close(&g);
}

Test(group, what_no_profile_takes_is_refused) {
    const rr__trt_profile p = {{1, 16}, {4, 64}, {8, 96}};
    int32_t               cu[3] = {0, 97, 98};
    rr__trt_groups        g;
    rr_error              err = {0};

    cr_assert_eq(rr__trt_groups_open(&g, 2, &p, 1, &err), RR_OK);
    cr_assert_eq(rr__trt_groups_plan(&g, cu, 2, &p, 1, &err), RR_E_TOO_LARGE);
    cr_assert(strstr(err.text, "97 tokens") && strstr(err.text, "take 96"), "%s", err.text);
    cr_assert_eq(rr__trt_groups_plan(&g, cu, 3, &p, 1, &err), RR_E_TOO_LARGE);
    cr_assert_eq(rr__trt_groups_plan(&g, cu, 0, &p, 1, &err), RR_E_TOO_LARGE);
    cu[1] = 96, cu[2] = 97;
    cr_assert_eq(rr__trt_groups_plan(&g, cu, 2, &p, 1, &err), RR_OK);
    check(&g, cu, 2, &p, 1);
    rr__trt_groups_close(&g);
}

/* A profile may ask for more than there is: rows and lengths are padded up to its least. */
Test(group, pads_to_the_least_of_a_profile) {
    const rr__trt_profile p = {{4, 64}, {8, 128}, {8, 128}};
    int32_t               cu[2] = {0, 5};
    rr__trt_groups        g = plan(cu, 1, &p, 1);

    cr_assert(g.n_group == 1 && g.group[0].rows == 4 && g.group[0].len == 64);
    cr_assert_eq(rr__trt_longest(&p, 1), 128);
    cr_assert_eq(rr__trt_cells(&p, 1), 1024);
    rr__trt_groups_close(&g);
}
