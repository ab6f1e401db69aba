/* test_cost.c - the cost model finds what made the samples, and follows a device that changes. */
#include "sched/cost.h"

#include <criterion/criterion.h>
#include <math.h>

static uint64_t state = 1;

static double uniform(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 9007199254740992.0;
}

/* A batch of n sequences of len tokens on a device with these coefficients, within 5 %. */
static void sample(rr__cost *k, double a, double b, double c) {
    double n = 1 + floor(uniform() * 60), len = 16 + floor(uniform() * 500);
    double us = (a + b * n * len + c * n * len * len) * (0.95 + 0.1 * uniform());

    rr__cost_observe(k, n * len, n * len * len, us);
}

static double error_of(const rr__cost *k, double a, double b, double c, double n, double len) {
    double us = a + b * n * len + c * n * len * len;

    return fabs(rr__cost_batch(k, n * len, n * len * len) / us - 1);
}

Test(cost, finds_the_coefficients) {
    rr__cost k;

    rr__cost_init(&k);
    for (int i = 0; i < 300; i++)
        sample(&k, 400, 0.9, 0.0004);
    cr_assert_lt(error_of(&k, 400, 0.9, 0.0004, 1, 32), 0.05);
    cr_assert_lt(error_of(&k, 400, 0.9, 0.0004, 50, 100), 0.05);
    cr_assert_lt(error_of(&k, 400, 0.9, 0.0004, 8, 500), 0.05);
}

Test(cost, never_predicts_less_for_more) {
    for (int round = 0; round < 200; round++) {
        rr__cost k;
        double   a = 1000 * uniform(), b = 10 * uniform(), c = 0.01 * uniform();

        rr__cost_init(&k);
        for (int i = 0; i < 5; i++)
            rr__cost_probe(&k, 1000 * uniform(), 1e6 * uniform(), 5000 * uniform());
        for (int i = 0; i < 20; i++)
            sample(&k, a, b, c);
        cr_assert(k.a >= 0 && k.b >= 0 && k.c >= 0 && k.a + k.b + k.c > 0);
        cr_assert(isfinite(k.a + k.b + k.c));
    }
}

Test(cost, one_size_of_batch_is_enough) {
    rr__cost k;

    rr__cost_init(&k);
    for (int i = 0; i < 50; i++)
        rr__cost_observe(&k, 1000, 100000, 1500);
    cr_assert_float_eq(rr__cost_batch(&k, 1000, 100000), 1500, 1);
}

Test(cost, ignores_a_hiccup_and_follows_a_change) {
    rr__cost k;
    double   before;

    rr__cost_init(&k);
    for (int i = 0; i < 100; i++)
        sample(&k, 400, 1, 0);
    before = rr__cost_batch(&k, 4000, 400000);
    for (int i = 0; i < 5; i++) /* a stopped process */
        rr__cost_observe(&k, 4000, 400000, 900000);
    cr_assert_float_eq(rr__cost_batch(&k, 4000, 400000), before, 1e-9);
    for (int i = 0; i < 200; i++) /* a slower clock, within the bounds of one model */
        sample(&k, 400, 2, 0);
    cr_assert_lt(error_of(&k, 400, 2, 0, 20, 200), 0.1);
    for (int i = 0; i < 60; i++) /* another device altogether */
        sample(&k, 9000, 60, 0);
    cr_assert_lt(error_of(&k, 9000, 60, 0, 20, 200), 0.1);
}

Test(cost, odd_samples_do_no_harm) {
    rr__cost k;

    rr__cost_init(&k);
    rr__cost_probe(&k, 1, 1, 0);
    rr__cost_probe(&k, 0, 0, 0);
    for (int i = 0; i < 20; i++)
        rr__cost_observe(&k, 0, 0, -5);
    cr_assert(isfinite(rr__cost_batch(&k, 1e6, 1e9)));
}
