/* cost.c - see cost.h: least squares of the relative error, over samples that fade, with no
 * coefficient below zero. */
#include "sched/cost.h"

#include <math.h>
#include <string.h>

/* A sample's weight after n more is KEEP^n: the last 50 batches or so decide. A batch beyond
 * STRANGE times its prediction, either way, is an outlier; PATIENCE of them in a row are not. */
#define KEEP       0.98
#define STRANGE    4.0
#define PATIENCE   8
#define TOKEN_UNIT 1e-3 /* features are kilotokens and their squares, so that sums stay alike */

void rr__cost_init(rr__cost *k) {
    *k = (rr__cost){.a = 100, .b = 10};
}

/* Solve the part of m theta = r whose rows are in mask; 0 if it is singular or leaves the
 * positive range. */
static int solve(const rr__cost_sums *s, int mask, double theta[3]) {
    double m[3][4];
    int    at[3] = {0}, n = 0;

    for (int i = 0; i < 3; i++) {
        theta[i] = 0;
        if (mask >> i & 1)
            at[n++] = i;
    }
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            m[i][j] = s->m[at[i]][at[j]];
        m[i][i] *= 1 + 1e-9;
        m[i][n] = s->r[at[i]];
    }
    for (int i = 0; i < n; i++) { /* positive definite: no pivoting needed */
        if (m[i][i] <= 1e-9 * s->m[at[i]][at[i]])
            return 0;
        for (int k = i + 1; k < n; k++) {
            double f = m[k][i] / m[i][i];

            for (int j = i; j <= n; j++)
                m[k][j] -= f * m[i][j];
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        double v = m[i][n];

        for (int j = i + 1; j < n; j++)
            v -= m[i][j] * theta[at[j]];
        theta[at[i]] = v / m[i][i];
        if (!(theta[at[i]] >= 0))
            return 0;
    }
    return 1;
}

/* Three unknowns: the best of the seven ways to hold some at zero is the exact answer. Where the
 * samples are too alike to tell, the first of the best: a price a token before one a batch. */
static void fit(rr__cost *k) {
    static const int masks[] = {2, 3, 6, 7, 1, 4, 5};
    rr__cost_sums    s = k->probe;
    double           best = 0, theta[3], error;

    for (int i = 0; i < 3; i++) {
        s.r[i] += k->run.r[i];
        for (int j = 0; j < 3; j++)
            s.m[i][j] += k->run.m[i][j];
    }
    for (int way = 0; way < 7; way++) {
        if (!solve(&s, masks[way], theta))
            continue;
        error = 0; /* less the sum of squares, which all share */
        for (int i = 0; i < 3; i++) {
            error -= 2 * theta[i] * s.r[i];
            for (int j = 0; j < 3; j++)
                error += theta[i] * s.m[i][j] * theta[j];
        }
        if (error < best - 1e-6 * fabs(best)) {
            best = error;
            k->a = theta[0];
            k->b = theta[1] * TOKEN_UNIT;
            k->c = theta[2] * TOKEN_UNIT * TOKEN_UNIT;
        }
    }
}

static void add_sample(rr__cost_sums *s, double tokens, double sumsq, double us) {
    double x[3] = {1 / us, tokens * TOKEN_UNIT / us, sumsq * TOKEN_UNIT * TOKEN_UNIT / us};

    for (int i = 0; i < 3; i++) {
        s->r[i] += x[i]; /* times us / us */
        for (int j = 0; j < 3; j++)
            s->m[i][j] += x[i] * x[j];
    }
}

void rr__cost_probe(rr__cost *k, double tokens, double sumsq, double us) {
    add_sample(&k->probe, tokens, sumsq, us > 1 ? us : 1);
    k->n++;
    fit(k);
}

void rr__cost_observe(rr__cost *k, double tokens, double sumsq, double us) {
    double guess = rr__cost_batch(k, tokens, sumsq);

    if (us < 1)
        us = 1;
    if (k->n > 0 && (us > STRANGE * guess || us * STRANGE < guess)) {
        if (++k->strange < PATIENCE)
            return;
        memset(&k->probe, 0, sizeof k->probe);
        memset(&k->run, 0, sizeof k->run);
    }
    k->strange = 0;
    k->n++;
    for (int i = 0; i < 3; i++) {
        k->run.r[i] *= KEEP;
        for (int j = 0; j < 3; j++)
            k->run.m[i][j] *= KEEP;
    }
    add_sample(&k->run, tokens, sumsq, us);
    fit(k);
}
