/* backend.h - the one table between the scheduler and a device.
 *
 * A backend is a whole forward pass: one flat ragged batch in, one logit a sequence out. It owns a
 * device, one copy of the weights and the workspaces of its instances; it knows no text and no
 * jobs. A new backend is one folder, one rr__backend and one line in list.c.
 *
 * Promise: a sequence's logit has the same bits alone and in any batch (ref, cpu, cuda unless fast). */
#ifndef RR_BACKEND_BACKEND_H
#define RR_BACKEND_BACKEND_H

#include "model/calibration.h"
#include "model/model.h"

#define RR__BACKEND_ABI 3 /* raise when anything here changes: modules are loaded at run time */

typedef enum rr__precision {
    RR__AUTO, /* the fastest the machine has, within the accuracy the README states */
    RR__FP32,
    RR__BF16,
    RR__FP16,
    RR__INT8,
    RR__FP8,
    RR__N_PRECISION
} rr__precision;

typedef struct rr__batch {
    int32_t        n_seq, n_tok, max_len;
    const int32_t *tok; /* [n_tok]     ids of all sequences, end to end                     */
    const int32_t *cu;  /* [n_seq + 1] cu[i]..cu[i+1] is sequence i; every length is >= 1   */
    const int32_t *seg; /* [n_seq]     leading tokens of type 0, the rest are type 1; used
                                       only where model->n_type > 1; NULL = all of type 0   */
} rr__batch;

typedef struct rr__backend_opts {
    rr__precision precision;
    int32_t       device;               /* ordinal                                               */
    int32_t       threads;              /* cpu: workers of an instance; 0 = all cores            */
    int32_t       max_batch_tokens;     /* workspace is planned for this many tokens ...         */
    int32_t       max_batch_seqs;       /* ... and this many sequences; score refuses more       */
    uint64_t      memory_limit;         /* device bytes for weights + instances; 0 = what is free */
    const char   *plan_path;            /* trt                                                   */
    int32_t       fast;                 /* cuda: bits may depend on the size of the batch         */
    const rr__calibration *calibration; /* read by load, not kept; fits the model; NULL = none   */
} rr__backend_opts;

typedef struct rr__backend_info {
    rr__precision precision;      /* what auto became                 */
    char          device[96];     /* "AMD EPYC, avx512_bf16, 2 threads" */
    uint64_t      weight_bytes;   /* once a device                    */
    uint64_t      instance_bytes; /* each instance                    */
    int32_t       max_length;     /* longest sequence; 0 = the model's */
} rr__backend_info;

/* One named activation of a forward pass, row-major fp32 on the host: rows are tokens of the batch
 * (or sequences, for the head and the last layer's CLS-only part), in batch order. Names, with
 * L = 0..n_layer-1, are the same on every backend:
 *   emb, L.qkv, L.ctx, L.attn_out, L.ln1, L.ffn_mid (after GELU), L.ffn_out, L.ln2, head, logits */
typedef struct rr__activation {
    const char  *name; /* "3.ln1" */
    int32_t      rows, cols;
    const float *data; /* [rows, cols] valid during the call only */
} rr__activation;
typedef void (*rr__observe_fn)(void *user, const rr__activation *a);

typedef struct rr__backend {
    int32_t     abi;        /* RR__BACKEND_ABI */
    const char *name;       /* "cuda" */
    int32_t     padded;     /* 1: cost is n_seq * max_len, so the packer groups by length */
    float       drift;      /* a sequence's logit moves by up to this times 1 + its magnitude from
                               pass to pass without a fault; 0 = 1e-3 */
    uint32_t    precisions; /* bit (1 << rr__precision) for each it can do */
    uint32_t    calibrated; /* the same for those at which it takes a calibration */

    /* Can it run here, now? If not, err says why and what would help. */
    rr_status (*probe)(rr_error *err);
    /* Place the weights on a device, once; instances share them. */
    rr_status (*load)(const rr__model *m, const rr__backend_opts *o, void **weights, rr_error *err);
    /* Plan all memory of one instance. score never allocates. */
    rr_status (*open)(void *weights, void **instance, rr_error *err);
    /* One forward pass; blocks; called by one thread at a time for an instance. logits [n_seq] */
    rr_status (*score)(void *instance, const rr__batch *b, float *logits, rr_error *err);
    /* score in two, for a device with a queue of its own; both NULL where there is none. start
     * returns when the batch is under way, b is free then; finish waits for the one that was
     * started first and gives its logits [n_seq]. Two may be under way. One thread at a time calls
     * start, and one finish, which may be two threads at once; score, observe and close are called
     * when none is under way. */
    rr_status (*start)(void *instance, const rr__batch *b, rr_error *err);
    rr_status (*finish)(void *instance, float *logits, rr_error *err);
    /* score with every named activation shown (slow); NULL if the backend cannot. */
    rr_status (*observe)(void *instance, const rr__batch *b, float *logits, rr__observe_fn fn,
                         void *user, rr_error *err);
    void (*describe)(const void *weights, rr__backend_info *out);
    void (*close)(void *instance);
    void (*unload)(void *weights);
} rr__backend;

/* list.c: the backends of this build, best first; NULL beyond the last. */
const rr__backend *rr__backend_at(int i);

/* By name, or the best that probes well for NULL. */
rr_status rr__backend_find(const char *name, const rr__backend **out, rr_error *err);

/* calibrated.c: does it take one at this precision? If not, err says at which. */
rr_status rr__backend_takes_calibration(const rr__backend *b, rr__precision p, rr_error *err);
/* Where a model folder's own calibration for a precision lies, if it has one; 0 if path [size] cannot
 * hold that. */
int rr__calibration_of_folder(const char *dir, rr__precision p, char *path, size_t size);
/* The calibration that a backend is to load with: of the file at path, or where path is
 * NULL the model folder's own (calibration.int8.json, or .fp8.json) if the backend takes one at this
 * precision, or NULL: there is none, or path is "none". A file that the backend does not take, or
 * that is not of this model, is an error. The caller frees *out. */
rr_status rr__backend_calibration(const rr__backend *b, rr__precision p, const rr__model *m,
                                  const char *path, rr__calibration **out, rr_error *err);

/* batch.c: "fp16" to RR__FP16 and back. NULL and "auto" give RR__AUTO; RR__N_PRECISION if
 * unknown. */
rr__precision rr__precision_parse(const char *name);
const char   *rr__precision_name(rr__precision p);

/* Refuse a batch no backend could run: counts, cu not rising, ids out of range, too long. */
rr_status rr__batch_check(const rr__batch *b, const rr__model *m, const rr__backend_opts *o,
                          rr_error *err);

#endif
