/* watch.h - pairs through a backend with every activation shown: what compare and calibrate share.
 *
 * Works below the engine: a model, a tokenizer and one backend instance, batches made here. */
#ifndef RR_CLI_WATCH_H
#define RR_CLI_WATCH_H

#include "options.h"

#include "backend/backend.h"
#include "text/pair.h"

/* Sequences of a batch, ready for a backend. */
typedef struct watch_pairs {
    rr__ids  ids;
    int32_t *cu, *seg; /* [n + 1], [n] */
    int32_t  n, cap, max_len;
} watch_pairs;

typedef struct watch {
    const rr__model   *model;
    const rr__backend *backend;
    rr__precision      precision; /* what auto became */
    void              *weights, *instance;
    char               label[32]; /* "cpu:int8" */
} watch;

/* Model, tokenizer and at most limit {"query", "document"} lines of path ("-" is standard input) as the common flags say. On failure what was opened stays in *m and *t
 * for the caller's own cleanup; both start as NULL. */
rr_status watch_load(const cli_common *c, const char *path, int32_t limit, rr__model **m,
                     rr__tokenizer **t, watch_pairs *p, rr_error *err);
/* Cutting as the common flags say, for a model of that longest input. */
void      watch_policy(const cli_common *c, int32_t longest, rr__pair_opts *o);
rr_status watch_add(watch_pairs *p, const rr__tokenizer *t, rr_str query, rr_str doc,
                    const rr__pair_opts *o, rr_error *err);
void      watch_pairs_free(watch_pairs *p);

/* A view of sequences [first, first + n), at most max_tokens of them (at least one sequence).
 * cu is written to cu[n + 1]. */
rr__batch watch_batch(const watch_pairs *p, int32_t first, int32_t max_tokens, int32_t *cu);

/* what is "backend", "precision" or "backend:precision"; NULL is the best backend at fp32. cal, borrowed
 * for the call, stands for the calibration that the flags or the model's folder name; may be NULL. */
rr_status watch_open(watch *w, const rr__model *m, const char *what, const cli_common *c,
                     const rr__calibration *cal, int32_t max_tokens, int32_t max_seqs,
                     rr_error *err);
void      watch_close(watch *w);

/* Split "cpu:int8", "cpu" or "int8" into its parts; NULL where a part is not given. */
void watch_split(const char *what, char buf[64], const char **backend, const char **precision);

#endif
