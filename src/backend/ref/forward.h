/* forward.h - the reference forward pass and the memory it works in; ref.c owns both. */
#ifndef RR_BACKEND_REF_FORWARD_H
#define RR_BACKEND_REF_FORWARD_H

#include "backend/backend.h"

enum { RR__REF_LANES = 16, RR__REF_BLOCK = 128 }; /* tokens side by side in linear() */

/* Letters: n = max_batch_tokens, s = max_batch_seqs, d = d_model, f = d_ff. */
typedef struct rr__ref {
    const rr__model *m;
    rr__backend_opts opts;
    int32_t         *pos;   /* [n]                                      */
    float           *x;     /* [n, d]  the residual stream              */
    float           *qkv;   /* [n, 3d]                                  */
    float           *ctx;   /* [n, d]                                   */
    float           *y;     /* [n, d]  output of a sublayer             */
    float           *mid;   /* [n, f]                                   */
    float           *first; /* [s, d]  the first token of each sequence */
    float           *head;  /* [s, d]                                   */
    double          *prob;  /* [max_length]  one row of attention       */
    float           *row;   /* [max(d, f)]  one row of weights          */
    double          *xt;    /* [BLOCK / LANES, max(d, f), LANES]        */
} rr__ref;

/* fn may be NULL. The batch was checked. */
void rr__ref_forward(rr__ref *r, const rr__batch *b, float *logits, rr__observe_fn fn, void *user);

#endif
