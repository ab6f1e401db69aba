/* rerank.h - score how well documents answer a query, with a cross-encoder.
 *
 *     rr_error   err;
 *     rr_model  *model  = NULL;
 *     rr_engine *engine = NULL;
 *     rr_str     docs[] = { RR_STR("Paris is the capital of France."),
 *                           RR_STR("The Seine is a river.") };
 *     float      scores[2];
 *
 *     if (rr_model_open("models/mini", &model, &err)  ||
 *         rr_engine_open(model, NULL, &engine, &err)  ||
 *         rr_score(engine, RR_STR("capital of France"), docs, 2, scores, &err))
 *         fprintf(stderr, "%s: %s\n", rr_status_name(err.status), err.text);
 *
 *     rr_engine_close(engine);          // every close/free accepts NULL
 *     rr_model_close(model);
 *
 * Rules that hold for every function here:
 *   - it returns RR_OK (0) or a negative rr_status, and on failure fills *err
 *     (err may be NULL) and leaves its output arguments untouched;
 *   - it never prints, never exits, never aborts on bad input;
 *   - it is thread-safe unless it says otherwise;
 *   - text is UTF-8 with an explicit length, never required to end in NUL;
 *     invalid bytes are read as U+FFFD, as the Hugging Face tokenizers do;
 *   - times are microseconds on the clock of rr_now_us(). */
#ifndef RERANK_H
#define RERANK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RR_VERSION "0.1.0"
#define RR_API     __attribute__((visibility("default")))

/* ---- types ------------------------------------------------------------ */

typedef struct rr_model  rr_model;  /* weights + tokenizer, read-only; share it */
typedef struct rr_engine rr_engine; /* a model on devices + its scheduler       */
typedef struct rr_job    rr_job;    /* one submitted query and its documents    */

typedef struct rr_str {
    const char *ptr;
    size_t      len;
} rr_str; /* bytes, not owned */
#ifdef __cplusplus
#define RR_STR(literal) (rr_str{"" literal, sizeof(literal) - 1})
#else
#define RR_STR(literal) ((rr_str){"" literal, sizeof(literal) - 1})
#endif

/* One table, two uses: the enum here, the names in rr_status_name().
 * The third column is the HTTP status the server answers with. */
#define RR_STATUS_MAP(X)                                                                           \
    X(RR_OK, 0, 200, "ok")                                                                         \
    X(RR_E_ARG, -1, 400, "invalid argument")                                                       \
    X(RR_E_TOO_LARGE, -2, 413, "request exceeds a configured limit")                               \
    X(RR_E_BUSY, -3, 429, "queue is full, retry later")                                            \
    X(RR_E_TIMEOUT, -4, 504, "deadline passed before scoring")                                     \
    X(RR_E_CANCELED, -5, 499, "job was canceled")                                                  \
    X(RR_E_IO, -6, 500, "file or socket error")                                                    \
    X(RR_E_FORMAT, -7, 500, "model file is malformed")                                             \
    X(RR_E_UNSUPPORTED, -8, 501, "not built in, or not on this device")                            \
    X(RR_E_NOMEM, -9, 503, "out of host or device memory")                                         \
    X(RR_E_DEVICE, -10, 500, "the device or its library failed")
#define RR_STATUS_ENUM(name, value, http, text) name = value,
typedef enum rr_status { RR_STATUS_MAP(RR_STATUS_ENUM) RR_STATUS_END = 1 } rr_status;

typedef struct rr_error {
    rr_status status;
    char      text[248]; /* one line, says what and where: "layer 3: w_qkv: ..." */
} rr_error;

/* What to do with a pair longer than max_length. HF names where HF has one. */
typedef enum rr_truncation {
    RR_TRUNC_DEFAULT = 0,   /* RR_TRUNC_ONLY_SECOND                                     */
    RR_TRUNC_ONLY_SECOND,   /* query cut to 3/4 of the window first, then document tail */
    RR_TRUNC_LONGEST_FIRST, /* the longer side loses tokens, one by one                 */
    RR_TRUNC_ERROR          /* refuse the request with RR_E_TOO_LARGE                   */
} rr_truncation;

typedef enum rr_side { RR_SIDE_RIGHT = 0, RR_SIDE_LEFT = 1 } rr_side; /* which end is cut */

typedef struct rr_model_info {
    const char *dir;          /* as given to rr_model_open                           */
    const char *architecture; /* "XLMRobertaForSequenceClassification"               */
    const char *dtype;        /* of the stored weights: "float32", "float16", ...    */
    int32_t     n_layer, d_model, n_head, d_ff, vocab_size, max_length;
    uint64_t    n_param;
    const char *label; /* id2label[0], e.g. "LABEL_0"                         */
} rr_model_info;       /* strings live as long as the model                   */

/* Zero means "default" for every field, so `= {0}` is always valid. */
typedef struct rr_engine_opts {
    const char   *backend;          /* "ref", "cpu", "cuda", "trt"; NULL = best that runs here  */
    const char   *precision;        /* "fp32", "bf16", "fp16", "int8", "fp8"; NULL = "auto"     */
    const char   *devices;          /* "0", "0,1", "all"; ignored by cpu and ref; NULL = "0"    */
    const char   *plan_path;        /* trt only: engine file from `rerank build`; TensorRT is
                                       looked for in $RERANK_TRT_LIB, then on the loader's path   */
    const char   *calibration_path; /* 8 bits: file of `rerank calibrate`, or "none"; NULL = the
                                       model folder's calibration.int8.json (or .fp8.json), if any */
    int32_t       instances;        /* workers a device over one copy of the weights; 0 = 1     */
    int32_t       threads;          /* cpu worker threads of an instance; 0 = all cores         */
    int32_t       tokenize_threads; /* workers that share a large request; 0 = cores, most 16   */
    int32_t       max_batch_tokens; /* tokens in one forward pass; 0 = 16384                    */
    int32_t       max_batch_seqs;   /* sequences in one forward pass; 0 = 1024                  */
    int64_t       max_queue_tokens; /* beyond this rr_submit says RR_E_BUSY (a request that is
                                       larger by itself: RR_E_TOO_LARGE); 0 = 4 Mi              */
    int32_t       max_wait_us;      /* idle device: how long to wait for company; 0 = none      */
    int32_t       max_length;       /* default tokens of a pair; 0 = min(512, model's limit)    */
    rr_truncation truncation;       /* default policy                                           */
    rr_side       side;             /* default end to cut                                       */
    uint64_t      memory_limit;     /* device bytes this engine may take; 0 = what is free      */
    int64_t       cache_tokens;     /* document-token cache, in 4-byte units of ids and text;
                                       0 = 4 Mi, -1 = none                                      */
    int32_t       fast;             /* cuda: 1 = sums of small batches are split; the last bits of
                                       a score then depend on the size of its batch              */
} rr_engine_opts;

/* Per request. Zero means "the engine's default". A request whose deadline cannot be met, by what is
 * queued and how fast the devices are, is refused with RR_E_TIMEOUT or dropped with it later. */
typedef struct rr_submit_opts {
    int64_t       deadline_us; /* absolute, rr_now_us() clock; 0 = none                    */
    int32_t       priority;    /* -100..100, smaller runs first, 0 is normal               */
    int32_t       max_length;  /* tokens of a pair, specials counted                       */
    int32_t       max_query;   /* most query tokens; 0 = 3/4 of max_length (only_second)   */
    int32_t       max_doc;     /* most document tokens; 0 = what is left of max_length     */
    rr_truncation truncation;
    rr_side       side;
} rr_submit_opts;

typedef struct rr_doc_info {
    int32_t tokens;    /* of the whole pair, specials counted, before truncation */
    int32_t kept;      /* what the model saw                                     */
    int32_t truncated; /* 1 if kept < tokens                                     */
} rr_doc_info;

typedef struct rr_timing {
    int64_t tokenize_us, queue_us, forward_us, total_us; /* of one job; forward = its batches */
    int32_t batches;
} rr_timing;

typedef struct rr_engine_info {
    const char *backend, *precision, *device; /* "cuda", "fp16", "NVIDIA H200"             */
    int32_t     n_instances, threads, max_batch_tokens, max_length;
    uint64_t    weight_bytes;   /* on the device, shared by all instances    */
    uint64_t    instance_bytes; /* each instance adds this                   */
    const char *left_out;       /* the first device that devices = "all" had to do without, and
                                   why; NULL = none                          */
} rr_engine_info;

/* A value counts in the first bucket i with value <= 2^i * base, or in the last one: the buckets
 * sum up to count. */
#define RR_HIST_BUCKETS 24
typedef struct rr_hist {
    uint64_t count, sum;
    uint64_t bucket[RR_HIST_BUCKETS];
} rr_hist;

typedef struct rr_stats { /* counters since rr_engine_open, monotone */
    uint64_t jobs, docs, tokens, batches, truncated_docs;
    uint64_t rejected_busy, rejected_deadline, expired, canceled, failed;
    uint64_t cache_hits, cache_misses;
    rr_hist  tokenize_us, queue_us, forward_us, total_us; /* base 16 us   */
    rr_hist  batch_tokens;                                /* base 1 token */
    int64_t  queued_tokens, queued_docs;                  /* right now    */
    int32_t  instances_ok, instances_fenced;
} rr_stats;

typedef void (*rr_done_fn)(rr_job *job, void *user);

/* ---- about ------------------------------------------------------------ */

/* Library version, equal to RR_VERSION of the header it was built with. */
RR_API const char *rr_version(void);

/* Static text for a status, e.g. "queue is full, retry later". Never NULL. */
RR_API const char *rr_status_text(rr_status status);

/* Static name for a status, e.g. "RR_E_BUSY". Never NULL. */
RR_API const char *rr_status_name(rr_status status);

/* The HTTP status for a status, e.g. 429. */
RR_API int rr_status_http(rr_status status);

/* Comma-separated backends in this build, best first, e.g. "cuda,cpu,ref". */
RR_API const char *rr_backends(void);

/* Whether a backend runs on this machine; if not, err says why and what to do. */
RR_API rr_status rr_backend_probe(const char *backend, rr_error *err);

/* Microseconds on a monotonic clock. */
RR_API int64_t rr_now_us(void);

/* ---- model ------------------------------------------------------------ */

/* Map a model directory (config.json, tokenizer.json or sentencepiece.bpe.model or vocab.txt,
 * model.safetensors or its shards). Copies no weights. */
RR_API rr_status rr_model_open(const char *dir, rr_model **out, rr_error *err);

/* As above, with the tokenizer files only; rr_engine_open refuses such a model. */
RR_API rr_status rr_tokenizer_open(const char *dir, rr_model **out, rr_error *err);

/* Drop a reference; the last engine or owner to close unmaps the files. */
RR_API void rr_model_close(rr_model *model);

/* Describe the model. Never fails; fields of a tokenizer-only model are 0. */
RR_API void rr_model_describe(const rr_model *model, rr_model_info *out);

typedef struct rr_token {
    int32_t id;
    int32_t special;    /* 1 for <s>, </s>, ... added by the template or found in the text */
    size_t  start, end; /* byte range in the text; equal for tokens that stand for no text */
} rr_token;

/* Tokenize one text. Writes at most cap tokens; *n gets the full count even if cap < n.
 * add_special: 1 wraps the text as the model's template for a single text does. */
RR_API rr_status rr_tokenize(const rr_model *model, rr_str text, int add_special, rr_token *tokens,
                             size_t cap, size_t *n, rr_error *err);

/* Write the token ids of one pair, truncated as opts say (NULL = defaults), into ids[cap];
 * *n gets the full count even if cap < n. info may be NULL. */
RR_API rr_status rr_tokenize_pair(const rr_model *model, rr_str query, rr_str doc,
                                  const rr_submit_opts *opts, int32_t *ids, size_t cap, size_t *n,
                                  rr_doc_info *info, rr_error *err);

/* The piece of a token id, e.g. "▁Paris"; {NULL, 0} if out of range. Lives as long as the model. */
RR_API rr_str rr_token_text(const rr_model *model, int32_t id);

/* ---- engine ----------------------------------------------------------- */

/* Place a model on its devices and start the scheduler. opts may be NULL. Keeps a reference. */
RR_API rr_status rr_engine_open(rr_model *model, const rr_engine_opts *opts, rr_engine **out,
                                rr_error *err);

/* Finish every queued job, stop the scheduler, release the device. Not from within done. A device
 * known to hang (rr_engine_check) is not waited for; it and the model then stay in memory. */
RR_API void rr_engine_close(rr_engine *engine);

/* What was opened. Strings live as long as the engine. */
RR_API void rr_engine_describe(const rr_engine *engine, rr_engine_info *out);

/* Copy the counters. Cheap enough to call on every scrape. */
RR_API void rr_engine_stats(const rr_engine *engine, rr_stats *out);

/* Estimated microseconds until everything now queued is scored (for Retry-After). */
RR_API int64_t rr_engine_backlog_us(const rr_engine *engine);

/* Score a fixed pair through every instance and compare with the value seen at open.
 * RR_E_DEVICE when an instance fails, hangs longer than timeout_us, or answers differently. On a
 * machine that starves this process a late answer is no hang, and the call may take longer. */
RR_API rr_status rr_engine_check(rr_engine *engine, int64_t timeout_us, rr_error *err);

/* ---- scoring ---------------------------------------------------------- */

/* Score docs[n] against query, in input order, and wait. scores[i] is a raw logit. */
RR_API rr_status rr_score(rr_engine *engine, rr_str query, const rr_str *docs, size_t n,
                          float *scores, rr_error *err);

/* Same, without waiting: tokenizes here, queues, returns. docs may be freed on return. The whole
 * request is admitted or refused; n = 0 is RR_E_ARG.
 * opts and done may be NULL. done runs once, on one of the engine's threads: hand over, do not
 * work there. It may run before rr_submit returns. The caller owns *out (rr_job_free). */
RR_API rr_status rr_submit(rr_engine *engine, rr_str query, const rr_str *docs, size_t n,
                           const rr_submit_opts *opts, rr_done_fn done, void *user, rr_job **out,
                           rr_error *err);

/* Same, for n independent pairs: queries[i] with docs[i]. Where docs[i].ptr is NULL, queries[i] alone,
 * as the model's template for a single text has it. */
RR_API rr_status rr_submit_pairs(rr_engine *engine, const rr_str *queries, const rr_str *docs,
                                 size_t n, const rr_submit_opts *opts, rr_done_fn done, void *user,
                                 rr_job **out, rr_error *err);

/* Same, for sequences already tokenized: sequence i is ids[cu[i]] .. ids[cu[i + 1]]. seg[i] is the
 * number of leading tokens of segment 0 (token type ids); seg may be NULL. Ids are checked. */
RR_API rr_status rr_submit_ids(rr_engine *engine, const int32_t *ids, const int32_t *cu,
                               const int32_t *seg, size_t n, const rr_submit_opts *opts,
                               rr_done_fn done, void *user, rr_job **out, rr_error *err);

/* Block until the job is done and its done has returned; returns its status. */
RR_API rr_status rr_wait(rr_job *job, rr_error *err);

/* Status of a finished job without blocking; *err as rr_wait fills it. Call it from done. */
RR_API rr_status rr_job_status(const rr_job *job, rr_error *err);

/* Scores (raw logits) of a finished job, in input order, owned by the job; NULL if it failed. */
RR_API const float *rr_job_scores(const rr_job *job, size_t *n);

/* Token counts of each document, in input order, owned by the job; known once submitted. */
RR_API const rr_doc_info *rr_job_docs(const rr_job *job, size_t *n);

/* Timings of a finished job. */
RR_API void rr_job_timing(const rr_job *job, rr_timing *out);

/* Ask to drop what is not packed into a batch yet. done still runs, with RR_E_CANCELED if anything
 * was dropped. */
RR_API void rr_cancel(rr_job *job);

/* Free a finished job, within done if you like; one that is not finished is canceled, and freed after
 * its done. Not thread-safe against rr_wait on the same job. */
RR_API void rr_job_free(rr_job *job);

/* Map a raw logit to 0..1: 1 / (1 + exp(-x)), in double, rounded once. */
RR_API float rr_sigmoid(float logit);

#ifdef __cplusplus
}
#endif
#endif /* RERANK_H */
