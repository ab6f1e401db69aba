/* cpu_engine.c - times the cpu backend on a file of sequences; bench/cpu.py is its caller.
 *
 *     cpu_engine MODEL SEQUENCES PRECISION THREADS REPEAT [CALIBRATION]
 *
 * Without CALIBRATION the model folder's own is used, as by the engine. SEQUENCES holds int32: n_seq,
 * cu[n_seq + 1], ids. Prints the seconds of the best pass and the device, then one logit a line. */
#include "backend/backend.h"
#include "base/clock.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>

extern const rr__backend rr__backend_cpu;

int main(int argc, char **argv) {
    rr__model       *m = NULL;
    rr__calibration *calibration = NULL;
    rr__file         file = {0};
    rr__backend_info info;
    rr_error         err = {0};
    void            *weights = NULL, *instance = NULL;
    float           *logits;
    double           best = 1e9;

    if (argc != 6 && argc != 7)
        return 2;
    if (rr__model_open(argv[1], &m, &err) || rr__file_map(argv[2], &file, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    const int32_t   *p = file.ptr, n = p[0], *cu = p + 1, *ids = cu + n + 1;
    rr__batch        b = {.n_seq = n, .n_tok = cu[n], .tok = ids, .cu = cu};
    rr__backend_opts o = {.precision = rr__precision_parse(argv[3]),
                          .threads = (int32_t)strtol(argv[4], NULL, 10),
                          .max_batch_tokens = cu[n],
                          .max_batch_seqs = n};

    for (int32_t i = 0; i < n; i++)
        if (cu[i + 1] - cu[i] > b.max_len)
            b.max_len = cu[i + 1] - cu[i];
    logits = calloc((size_t)n, sizeof *logits);
    if (rr__backend_calibration(&rr__backend_cpu, o.precision, m, argv[6], &calibration, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    o.calibration = calibration;
    if (!logits || rr__backend_cpu.load(m, &o, &weights, &err) ||
        rr__backend_cpu.open(weights, &instance, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (int i = 0; i <= strtol(argv[5], NULL, 10); i++) { /* the first pass warms up */
        int64_t start = rr__now_ns();

        if (rr__backend_cpu.score(instance, &b, logits, &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        if (i && (double)(rr__now_ns() - start) * 1e-9 < best)
            best = (double)(rr__now_ns() - start) * 1e-9;
    }
    rr__backend_cpu.describe(weights, &info);
    printf("%.6f %s\n", best, info.device);
    for (int32_t i = 0; i < n; i++)
        printf("%.6f\n", (double)logits[i]);
    rr__backend_cpu.close(instance);
    rr__backend_cpu.unload(weights);
    rr__calibration_free(calibration);
    rr__file_unmap(&file);
    rr__model_close(m);
    free(logits);
    return 0;
}
