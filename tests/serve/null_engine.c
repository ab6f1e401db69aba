/* null_engine.c - rerank.h without a model: the server linked with this serves a known formula, so
 * that its own cost can be measured and faults can be made at will.
 *
 *     logit = document bytes % 17 - 8; tokens = query bytes / 4 + document bytes / 4 + 4
 *
 * NULL_US=n      a job takes n microseconds on the "device", one after the other
 * NULL_QUEUE=n   beyond n queued tokens rr_submit says RR_E_BUSY
 * NULL_HANG=f    while the file f exists, nothing is scored and checks time out
 * NULL_FAIL=f    while the file f exists, every job fails with RR_E_DEVICE */
#include "base/error.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct rr_model {
    const char *dir;
};

struct rr_job {
    rr_job      *next;
    rr_done_fn   done;
    void        *user;
    rr_status    status;
    size_t       n;
    int64_t      tokens, deadline_us, submit_us, start_us, end_us;
    atomic_int   canceled;
    float       *scores;
    rr_doc_info *info;
};

struct rr_engine {
    pthread_mutex_t lock;
    pthread_cond_t  more;
    pthread_t       thread;
    rr_job         *head, **tail;
    int             closing;
    int64_t         queued, limit, us;
    rr_stats        stats;
};

static int64_t env(const char *name, int64_t otherwise) {
    const char *v = getenv(name);

    return v ? strtoll(v, NULL, 10) : otherwise;
}

static int fault(const char *name) {
    const char *file = getenv(name);

    return file && access(file, F_OK) == 0;
}

static void sleep_us(int64_t us) {
    struct timespec ts = {us / 1000000, (long)(us % 1000000) * 1000};

    nanosleep(&ts, NULL);
}

static void run(rr_engine *e, rr_job *j) {
    j->start_us = rr_now_us();
    while (fault("NULL_HANG"))
        sleep_us(10000);
    if (atomic_load(&j->canceled))
        j->status = RR_E_CANCELED;
    else if (j->deadline_us && j->start_us > j->deadline_us)
        j->status = RR_E_TIMEOUT;
    else if (fault("NULL_FAIL"))
        j->status = RR_E_DEVICE;
    else if (e->us)
        sleep_us(e->us);
    j->end_us = rr_now_us();
}

static void *device_main(void *arg) {
    rr_engine *e = arg;

    pthread_mutex_lock(&e->lock);
    for (;;) {
        rr_job *j = e->head;

        if (!j) {
            if (e->closing)
                break;
            pthread_cond_wait(&e->more, &e->lock);
            continue;
        }
        e->head = j->next;
        if (!e->head)
            e->tail = &e->head;
        pthread_mutex_unlock(&e->lock);
        run(e, j);
        pthread_mutex_lock(&e->lock);
        e->queued -= j->tokens;
        e->stats.canceled += j->status == RR_E_CANCELED ? j->n : 0;
        e->stats.failed += j->status == RR_E_DEVICE ? j->n : 0;
        e->stats.batches++;
        pthread_mutex_unlock(&e->lock);
        j->done(j, j->user);
        pthread_mutex_lock(&e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static rr_job *new_job(size_t n, const rr_submit_opts *o, rr_done_fn done, void *user) {
    rr_job *j = calloc(1, sizeof *j);

    j->done = done;
    j->user = user;
    j->n = n;
    j->submit_us = rr_now_us();
    j->deadline_us = o ? o->deadline_us : 0;
    j->scores = calloc(n + 1, sizeof *j->scores);
    j->info = calloc(n + 1, sizeof *j->info);
    return j;
}

static void set_doc(rr_job *j, size_t i, size_t query, size_t doc) {
    int32_t tokens = (int32_t)(doc / 4 + query / 4 + 4), kept = tokens < 512 ? tokens : 512;

    j->scores[i] = (float)((int)(doc % 17) - 8);
    j->info[i] = (rr_doc_info){tokens, kept, kept < tokens};
    j->tokens += kept;
}

static rr_status start(rr_engine *e, rr_job *j, rr_job **out, rr_error *err) {
    pthread_mutex_lock(&e->lock);
    if (e->queued + j->tokens > e->limit) {
        e->stats.rejected_busy++;
        pthread_mutex_unlock(&e->lock);
        rr_job_free(j);
        return rr__fail(err, RR_E_BUSY, "the queue is full");
    }
    e->queued += j->tokens;
    e->stats.jobs++;
    e->stats.docs += j->n;
    e->stats.tokens += (uint64_t)j->tokens;
    *out = j;
    *e->tail = j;
    e->tail = &j->next;
    pthread_cond_signal(&e->more);
    pthread_mutex_unlock(&e->lock);
    return RR_OK;
}

rr_status rr_submit(rr_engine *e, rr_str query, const rr_str *docs, size_t n,
                    const rr_submit_opts *opts, rr_done_fn done, void *user, rr_job **out,
                    rr_error *err) {
    rr_job *j = new_job(n, opts, done, user);

    for (size_t i = 0; i < n; i++)
        set_doc(j, i, query.len, docs[i].len);
    return start(e, j, out, err);
}

rr_status rr_submit_pairs(rr_engine *e, const rr_str *queries, const rr_str *docs, size_t n,
                          const rr_submit_opts *opts, rr_done_fn done, void *user, rr_job **out,
                          rr_error *err) {
    rr_job *j = new_job(n, opts, done, user);

    for (size_t i = 0; i < n; i++)
        set_doc(j, i, docs[i].ptr ? queries[i].len : 0, docs[i].ptr ? docs[i].len : queries[i].len);
    return start(e, j, out, err);
}

rr_status rr_submit_ids(rr_engine *e, const int32_t *ids, const int32_t *cu, const int32_t *seg,
                        size_t n, const rr_submit_opts *opts, rr_done_fn done, void *user,
                        rr_job **out, rr_error *err) {
    rr_job *j = new_job(n, opts, done, user);

    for (size_t i = 0; i < n; i++)
        set_doc(j, i, 0, (size_t)(cu[i + 1] - cu[i]));
    return start(e, j, out, err);
}

rr_status rr_job_status(const rr_job *j, rr_error *err) {
    return j->status == RR_OK ? RR_OK : rr__fail(err, j->status, "%s", rr_status_text(j->status));
}

const float *rr_job_scores(const rr_job *j, size_t *n) {
    *n = j->n;
    return j->scores;
}

const rr_doc_info *rr_job_docs(const rr_job *j, size_t *n) {
    *n = j->n;
    return j->info;
}

void rr_job_timing(const rr_job *j, rr_timing *out) {
    *out = (rr_timing){0, j->start_us - j->submit_us, j->end_us - j->start_us,
                       j->end_us - j->submit_us, 1};
}

void rr_cancel(rr_job *j) {
    atomic_store(&j->canceled, 1);
}

void rr_job_free(rr_job *j) {
    if (!j)
        return;
    free(j->scores);
    free(j->info);
    free(j);
}

/* ---- engine ---------------------------------------------------------------------------------- */

rr_status rr_engine_open(rr_model *model, const rr_engine_opts *opts, rr_engine **out,
                         rr_error *err) {
    rr_engine *e = calloc(1, sizeof *e);

    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->more, NULL);
    e->tail = &e->head;
    e->us = env("NULL_US", 0);
    e->limit = env("NULL_QUEUE", 1 << 30);
    if (pthread_create(&e->thread, NULL, device_main, e) != 0)
        return rr__fail(err, RR_E_NOMEM, "thread");
    *out = e;
    return RR_OK;
}

void rr_engine_close(rr_engine *e) {
    if (!e)
        return;
    pthread_mutex_lock(&e->lock);
    e->closing = 1;
    pthread_cond_signal(&e->more);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    free(e);
}

void rr_engine_describe(const rr_engine *e, rr_engine_info *out) {
    *out = (rr_engine_info){"null", "fp32", "none", 1, 1, 16384, 512, 0, 0, NULL};
}

void rr_engine_stats(const rr_engine *e, rr_stats *out) {
    rr_engine *self = (rr_engine *)(uintptr_t)e;

    pthread_mutex_lock(&self->lock);
    *out = e->stats;
    out->queued_tokens = e->queued;
    out->instances_ok = !fault("NULL_HANG") && !fault("NULL_FAIL");
    pthread_mutex_unlock(&self->lock);
}

int64_t rr_engine_backlog_us(const rr_engine *e) {
    return 1500000;
}

rr_status rr_engine_check(rr_engine *e, int64_t timeout_us, rr_error *err) {
    int64_t until = rr_now_us() + timeout_us;

    while (fault("NULL_HANG")) {
        if (rr_now_us() > until)
            return rr__fail(err, RR_E_DEVICE, "no answer");
        sleep_us(10000);
    }
    return fault("NULL_FAIL") ? rr__fail(err, RR_E_DEVICE, "the device fails") : RR_OK;
}

/* ---- model and the rest ---------------------------------------------------------------------- */

rr_status rr_model_open(const char *dir, rr_model **out, rr_error *err) {
    *out = calloc(1, sizeof **out);
    (*out)->dir = dir;
    return RR_OK;
}

void rr_model_close(rr_model *m) {
    free(m);
}

void rr_model_describe(const rr_model *m, rr_model_info *out) {
    *out = (rr_model_info){
        .dir = m->dir, .architecture = "Null", .max_length = 512, .label = "LABEL_0"};
}

rr_status rr_tokenize(const rr_model *m, rr_str text, int add_special, rr_token *tok, size_t cap,
                      size_t *n, rr_error *err) {
    *n = text.len;
    for (size_t i = 0; i < text.len && i < cap; i++)
        tok[i] = (rr_token){(unsigned char)text.ptr[i], 0, i, i + 1};
    return RR_OK;
}

rr_str rr_token_text(const rr_model *m, int32_t id) {
    static const char all[] = "abcdefgh";

    return id >= 'a' && id <= 'h' ? (rr_str){&all[id - 'a'], 1} : (rr_str){NULL, 0};
}

float rr_sigmoid(float logit) {
    return (float)(1 / (1 + exp(-(double)logit)));
}
