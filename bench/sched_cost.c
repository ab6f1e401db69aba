/* sched_cost.c - how well us = a + b * tokens + c * sum(len^2) describes a real backend.
 *
 *     build/bench/sched_cost MODEL_DIR BACKEND [PRECISION]
 *
 * Runs batches of many shapes, half of them to fit the model and half to check it, and prints the
 * coefficients and the error of each prediction. bench/sched takes the coefficients as a device. */
#include "backend/backend.h"
#include "sched/cost.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_TOKENS = 16384, MAX_SEQS = 1024, REPEAT = 5 };

static const int32_t shapes[][2] = {{1, 16},  {1, 64},   {1, 256},  {1, 512}, {4, 32},   {4, 128},
                                    {4, 512}, {16, 64},  {16, 128}, {8, 256}, {16, 512}, {32, 180},
                                    {64, 64}, {64, 180}, {32, 512}, {90, 180}};
enum { N_SHAPE = sizeof shapes / sizeof shapes[0] };

/* The best of a few runs of n sequences of len tokens, in us; negative if it fails. */
static double time_of(const rr__backend *b, void *instance, int32_t n, int32_t len) {
    static int32_t tok[MAX_TOKENS], cu[MAX_SEQS + 1];
    static float   logits[MAX_SEQS];
    rr__batch      batch = {n, n * len, len, tok, cu, NULL};
    rr_error       err = {0};
    double         best = INFINITY;

    for (int32_t i = 0; i < n * len; i++)
        tok[i] = 5 + i * 31 % 1000;
    for (int32_t i = 0; i <= n; i++)
        cu[i] = i * len;
    for (int r = 0; r < REPEAT; r++) {
        int64_t start = rr_now_us();

        if (b->score(instance, &batch, logits, &err) != RR_OK) {
            fprintf(stderr, "%d x %d: %s\n", (int)n, (int)len, err.text);
            return -1;
        }
        best = fmin(best, (double)(rr_now_us() - start));
    }
    return best;
}

int main(int argc, char **argv) {
    const rr__backend *b = NULL;
    rr__model         *model = NULL;
    rr__backend_opts   o = {.max_batch_tokens = MAX_TOKENS, .max_batch_seqs = MAX_SEQS};
    rr__backend_info   info;
    void              *weights = NULL, *instance = NULL;
    rr__cost           cost;
    rr_error           err = {0};
    double             us[N_SHAPE];

    if (argc < 3)
        return fprintf(stderr, "usage: sched_cost MODEL_DIR BACKEND [PRECISION]\n"), 2;
    o.precision = rr__precision_parse(argc > 3 ? argv[3] : NULL);
    if (rr__backend_find(argv[2], &b, &err) || rr__model_open(argv[1], &model, &err) ||
        b->load(model, &o, &weights, &err) || b->open(weights, &instance, &err))
        return fprintf(stderr, "%s\n", err.text), 1;
    b->describe(weights, &info);
    rr__cost_init(&cost);
    time_of(b, instance, 4, 64); /* warm */
    for (int i = 0; i < N_SHAPE; i++) {
        double tokens = (double)shapes[i][0] * shapes[i][1];

        us[i] = time_of(b, instance, shapes[i][0], shapes[i][1]);
        if (us[i] < 0)
            return 1;
        if (i % 2 == 0)
            rr__cost_probe(&cost, tokens, tokens * shapes[i][1], us[i]);
    }
    printf("%s, %s, %s: a = %.1f us, b = %.3f us a token, c = %.6f us a token squared\n", b->name,
           rr__precision_name(info.precision), info.device, cost.a, cost.b, cost.c);
    for (int i = 0; i < N_SHAPE; i++) {
        double tokens = (double)shapes[i][0] * shapes[i][1];
        double guess = rr__cost_batch(&cost, tokens, tokens * shapes[i][1]);

        printf("%4d x %3d  %9.0f us  predicted %9.0f  %+6.1f %%%s\n", (int)shapes[i][0],
               (int)shapes[i][1], us[i], guess, 100 * (guess / us[i] - 1),
               i % 2 == 0 ? "" : "  unseen");
    }
    b->close(instance);
    b->unload(weights);
    rr__model_close(model);
    return 0;
}
