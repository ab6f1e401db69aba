/* api.h - what stands behind the opaque handles of rerank.h. */
#ifndef RR_API_API_H
#define RR_API_API_H

#include "api/cache.h"
#include "backend/backend.h"
#include "base/pool.h"
#include "sched/sched.h"
#include "text/pair.h"

#include <pthread.h>
#include <stdatomic.h>

enum { RR__MAX_DEVICES = 16, RR__MAX_INSTANCES = 64 };

struct rr_model {
    atomic_int     refs;
    rr__tokenizer *tok;
    rr__model     *weights; /* NULL: tokenizer only */
    char          *dir;
};

/* model.c */
void rr__model_ref(const rr_model *model);

struct rr_engine {
    rr_model          *model;
    const rr__backend *backend;
    void              *weights[RR__MAX_DEVICES];
    int32_t            n_device;
    rr__backend_opts   backend_opts;
    rr__backend_info   info;
    char               device[256];                /* of all devices, for people */
    char               left_out[sizeof(rr_error)]; /* of "all": which device, and why; or "" */
    rr__sched         *sched;
    rr__pool          *pool;  /* shares the tokenizing of a large request */
    rr__cache         *cache; /* NULL = none                              */
    int32_t            instances, max_length;
    int64_t            max_queue_tokens;
    rr_submit_opts     defaults; /* max_length, truncation, side */
};

/* options.c: zero fields become the defaults; refuses what makes no sense. */
rr_status rr__engine_defaults(const rr__model *m, const rr_engine_opts *in, rr_engine_opts *out,
                              rr_error *err);
/* "0,1" or "all" to ordinals; *all is 1 for "all". */
rr_status rr__devices_parse(const char *text, int32_t *ordinal, int32_t *n, int *all,
                            rr_error *err);
/* A backend takes no sequence longer than most: lower the usual length of a pair and the longest to
 * it. RR_E_ARG if the caller asked for more. */
rr_status rr__lengths_within(int32_t asked, int32_t most, int32_t *usual, int32_t *longest,
                             rr_error *err);
/* Options of one request, over defaults, for pairs of at most `limit` tokens. */
rr_status rr__pair_options(const rr__tokenizer *t, const rr_submit_opts *in,
                           const rr_submit_opts *defaults, int32_t limit, rr__pair_opts *out,
                           rr_error *err);

/* encode.c: all sequences of a request, end to end. */
typedef struct rr__encoded {
    rr__ids      ids;
    int32_t     *cu;   /* [n + 1] */
    int32_t     *seg;  /* [n]     */
    rr_doc_info *info; /* [n]     */
} rr__encoded;

/* queries holds one query for all, or one a document (n_query is 1 or n). With singles a document that
 * is NULL stands for its query alone. */
rr_status rr__encode(rr_engine *e, const rr_str *queries, size_t n_query, const rr_str *docs,
                     size_t n, int singles, const rr__pair_opts *o, rr__encoded *out,
                     rr_error *err);
void      rr__encoded_free(rr__encoded *x);

#endif
