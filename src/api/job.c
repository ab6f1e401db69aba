/* job.c - one submitted request from rr_submit to rr_job_free.
 *
 * Two hold a job: its owner, and the scheduler until done has returned. The last one frees it, so
 * the owner may free it as soon as it learns the result, even inside done. */
#include "api/api.h"

#include <stdlib.h>
#include <string.h>

typedef enum phase {
    PHASE_OPEN,
    PHASE_DONE,  /* results are there, the callback runs */
    PHASE_CLOSED /* the callback has returned            */
} phase;

struct rr_job {
    rr__work        work; /* first: the scheduler hands it back */
    atomic_int      refs;
    rr_engine      *engine; /* used only while the job is open */
    rr__encoded     seqs;
    size_t          n;
    float          *scores; /* [n] */
    rr_done_fn      done;
    void           *user;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t  changed;
    phase           phase;
    pthread_t       caller; /* of done, while in PHASE_DONE */
};

static void unref(rr_job *job) {
    if (atomic_fetch_sub(&job->refs, 1) != 1)
        return;
    rr__encoded_free(&job->seqs);
    free(job->scores);
    pthread_mutex_destroy(&job->lock);
    pthread_cond_destroy(&job->changed);
    free(job);
}

static void set_phase(rr_job *job, phase p) {
    pthread_mutex_lock(&job->lock);
    job->phase = p;
    job->caller = pthread_self();
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->lock);
}

static phase phase_of(const rr_job *job) {
    rr_job *j = (rr_job *)job;
    phase   p;

    pthread_mutex_lock(&j->lock);
    p = j->phase;
    pthread_mutex_unlock(&j->lock);
    return p;
}

/* The scheduler's last word on a job. */
static void work_done(rr__work *w) {
    rr_job *job = (rr_job *)w;

    /* Ids are not needed any more, and a finished job may lie about for a while. */
    rr__ids_free(&job->seqs.ids);
    set_phase(job, PHASE_DONE);
    if (job->done)
        job->done(job, job->user);
    set_phase(job, PHASE_CLOSED);
    unref(job);
}

static rr_job *job_new(rr_engine *e, size_t n, rr_done_fn done, void *user) {
    rr_job *job = calloc(1, sizeof *job);

    if (!job || !(job->scores = malloc(n * sizeof *job->scores))) {
        free(job);
        return NULL;
    }
    atomic_init(&job->refs, 1);
    job->engine = e;
    job->n = n;
    job->done = done;
    job->user = user;
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->changed, NULL);
    return job;
}

/* Hand a tokenized job to the scheduler; on failure it is gone. */
static rr_status post(rr_job *job, const rr_submit_opts *opts, int64_t start_us, rr_job **out,
                      rr_error *err) {
    rr__work *w = &job->work;
    rr_status s;

    w->task.cu = job->seqs.cu;
    w->task.n = (int32_t)job->n;
    w->task.priority = opts ? opts->priority : 0;
    w->task.deadline_us = opts ? opts->deadline_us : 0;
    w->ids = job->seqs.ids.id;
    w->seg = job->seqs.seg;
    w->logits = job->scores;
    w->done = work_done;
    w->tokenize_us = rr_now_us() - start_us;
    for (size_t i = 0; i < job->n; i++)
        w->n_truncated += job->seqs.info[i].truncated != 0;
    atomic_fetch_add(&job->refs, 1);
    s = rr__sched_submit(job->engine->sched, w, err);
    if (s == RR_OK) { /* job may be finished by now, and even freed in done */
        *out = job;
        return RR_OK;
    }
    unref(job);
    unref(job);
    return s;
}

static rr_status check_args(const rr_engine *e, const rr_submit_opts *opts, size_t n, rr_job **out,
                            rr_error *err) {
    if (!e || !out)
        return rr__fail(err, RR_E_ARG, "submit: engine and out must not be NULL");
    if (n == 0)
        return rr__fail(err, RR_E_ARG, "no documents");
    if (n > INT32_MAX / 2)
        return rr__fail(err, RR_E_TOO_LARGE, "%zu documents in one request", n);
    if (opts && opts->deadline_us < 0)
        return rr__fail(err, RR_E_ARG, "deadline_us is negative");
    return RR_OK;
}

/* Fewer tokens than these documents will have, nearly always: four bytes a token is usual. */
static int64_t least_tokens(const rr_str *docs, size_t n, int32_t max_length) {
    int64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        size_t len = docs[i].len / 8 + 4;

        sum += len < (size_t)max_length ? (int64_t)len : max_length;
    }
    return sum;
}

static rr_status submit_text(rr_engine *e, const rr_str *queries, size_t n_query,
                             const rr_str *docs, size_t n, int singles, const rr_submit_opts *opts,
                             rr_done_fn done, void *user, rr_job **out, rr_error *err) {
    int64_t       start = rr_now_us();
    rr__pair_opts pair;
    rr_job       *job;
    rr_status     s = check_args(e, opts, n, out, err);

    if (s != RR_OK)
        return s;
    if (!docs || !queries)
        return rr__fail(err, RR_E_ARG, "submit: NULL where text is needed");
    for (size_t i = 0; i < n; i++)
        if ((!docs[i].ptr && docs[i].len > 0) ||
            (i < n_query && !queries[i].ptr && queries[i].len > 0))
            return rr__fail(err, RR_E_ARG, "document %zu or its query: NULL with a length", i);
    s = rr__pair_options(e->model->tok, opts, &e->defaults, e->max_length, &pair, err);
    if (s == RR_OK)
        s = rr__sched_admits(e->sched, least_tokens(docs, n, pair.max_length), err);
    if (s != RR_OK)
        return s;
    job = job_new(e, n, done, user);
    if (!job)
        return rr__fail(err, RR_E_NOMEM, "job of %zu documents: out of memory", n);
    s = rr__encode(e, queries, n_query, docs, n, singles, &pair, &job->seqs, err);
    if (s != RR_OK) {
        unref(job);
        return s;
    }
    return post(job, opts, start, out, err);
}

rr_status rr_submit(rr_engine *engine, rr_str query, const rr_str *docs, size_t n,
                    const rr_submit_opts *opts, rr_done_fn done, void *user, rr_job **out,
                    rr_error *err) {
    return submit_text(engine, &query, 1, docs, n, 0, opts, done, user, out, err);
}

rr_status rr_submit_pairs(rr_engine *engine, const rr_str *queries, const rr_str *docs, size_t n,
                          const rr_submit_opts *opts, rr_done_fn done, void *user, rr_job **out,
                          rr_error *err) {
    return submit_text(engine, queries, n, docs, n, 1, opts, done, user, out, err);
}

/* Sequences somebody else made: nothing about them is believed. */
static rr_status check_ids(const rr_engine *e, const int32_t *ids, const int32_t *cu,
                           const int32_t *seg, size_t n, int32_t max_length, rr_error *err) {
    const int32_t vocab = e->model->weights->vocab_size;

    if (!ids || !cu || cu[0] != 0)
        return rr__fail(err, RR_E_ARG, "ids: NULL, or cu[0] is not 0");
    for (size_t i = 0; i < n; i++) {
        int64_t len = (int64_t)cu[i + 1] - cu[i];

        if (len < 1 || len > max_length)
            return rr__fail(err, len < 1 ? RR_E_ARG : RR_E_TOO_LARGE,
                            "sequence %zu has %lld tokens; it must have 1 to %d", i, (long long)len,
                            (int)max_length);
        if (cu[i + 1] > e->max_queue_tokens)
            return rr__fail(err, RR_E_TOO_LARGE, "more than %lld tokens in one request",
                            (long long)e->max_queue_tokens);
        if (seg && (seg[i] < 0 || seg[i] > len))
            return rr__fail(err, RR_E_ARG, "sequence %zu: %d tokens of segment 0 out of %lld", i,
                            (int)seg[i], (long long)len);
        for (int32_t t = cu[i]; t < cu[i + 1]; t++)
            if (ids[t] < 0 || ids[t] >= vocab)
                return rr__fail(err, RR_E_ARG, "sequence %zu: token id %d is outside 0..%d", i,
                                (int)ids[t], (int)vocab - 1);
    }
    return RR_OK;
}

static rr_status copy_ids(rr_job *job, const int32_t *ids, const int32_t *cu, const int32_t *seg,
                          rr_error *err) {
    rr__encoded *x = &job->seqs;
    const size_t n = job->n, n_tok = (size_t)cu[n];

    x->ids.id = malloc(n_tok * sizeof *ids);
    x->cu = malloc((n + 1) * sizeof *cu);
    x->seg = malloc(n * sizeof *x->seg);
    x->info = malloc(n * sizeof *x->info);
    if (!x->ids.id || !x->cu || !x->seg || !x->info)
        return rr__fail(err, RR_E_NOMEM, "job of %zu tokens: out of memory", n_tok);
    x->ids.n = x->ids.cap = n_tok;
    memcpy(x->ids.id, ids, n_tok * sizeof *ids);
    memcpy(x->cu, cu, (n + 1) * sizeof *cu);
    for (size_t i = 0; i < n; i++) {
        int32_t len = cu[i + 1] - cu[i];

        x->seg[i] = seg ? seg[i] : len;
        x->info[i] = (rr_doc_info){.tokens = len, .kept = len};
    }
    return RR_OK;
}

rr_status rr_submit_ids(rr_engine *engine, const int32_t *ids, const int32_t *cu,
                        const int32_t *seg, size_t n, const rr_submit_opts *opts, rr_done_fn done,
                        void *user, rr_job **out, rr_error *err) {
    int64_t       start = rr_now_us();
    rr__pair_opts pair;
    rr_job       *job;
    rr_status     s = check_args(engine, opts, n, out, err);

    if (s == RR_OK)
        s = rr__pair_options(engine->model->tok, opts, &engine->defaults, engine->max_length, &pair,
                             err);
    if (s == RR_OK)
        s = check_ids(engine, ids, cu, seg, n, engine->max_length, err);
    if (s != RR_OK)
        return s;
    job = job_new(engine, n, done, user);
    if (!job)
        return rr__fail(err, RR_E_NOMEM, "job of %zu sequences: out of memory", n);
    s = copy_ids(job, ids, cu, seg, err);
    if (s != RR_OK) {
        unref(job);
        return s;
    }
    return post(job, opts, start, out, err);
}

/* ---- results ------------------------------------------------------------ */

rr_status rr_job_status(const rr_job *job, rr_error *err) {
    if (!job)
        return rr__fail(err, RR_E_ARG, "no job");
    if (phase_of(job) == PHASE_OPEN)
        return rr__fail(err, RR_E_ARG, "the job is not finished");
    if (job->work.error.status != RR_OK && err)
        *err = job->work.error;
    return job->work.error.status;
}

rr_status rr_wait(rr_job *job, rr_error *err) {
    if (!job)
        return rr__fail(err, RR_E_ARG, "no job");
    pthread_mutex_lock(&job->lock);
    /* Not before done has returned, so that what it uses may be freed; in done itself, at once. */
    while (job->phase == PHASE_OPEN ||
           (job->phase == PHASE_DONE && !pthread_equal(job->caller, pthread_self())))
        pthread_cond_wait(&job->changed, &job->lock);
    pthread_mutex_unlock(&job->lock);
    return rr_job_status(job, err);
}

const float *rr_job_scores(const rr_job *job, size_t *n) {
    int ok = job && rr_job_status(job, NULL) == RR_OK;

    if (n)
        *n = ok ? job->n : 0;
    return ok ? job->scores : NULL;
}

const rr_doc_info *rr_job_docs(const rr_job *job, size_t *n) {
    if (n)
        *n = job ? job->n : 0;
    return job ? job->seqs.info : NULL;
}

void rr_job_timing(const rr_job *job, rr_timing *out) {
    if (!out)
        return;
    *out = (rr_timing){0};
    if (job && phase_of(job) != PHASE_OPEN)
        *out = job->work.timing;
}

void rr_cancel(rr_job *job) {
    if (!job)
        return;
    /* Under the lock the job stays open, and while one is open the scheduler is there. */
    pthread_mutex_lock(&job->lock);
    if (job->phase == PHASE_OPEN)
        rr__sched_cancel(job->engine->sched, &job->work);
    pthread_mutex_unlock(&job->lock);
}

void rr_job_free(rr_job *job) {
    if (!job)
        return;
    rr_cancel(job); /* if it is not finished after all, do not work for nobody */
    unref(job);
}

rr_status rr_score(rr_engine *engine, rr_str query, const rr_str *docs, size_t n, float *scores,
                   rr_error *err) {
    rr_job   *job;
    rr_status s;

    if (!scores && n > 0)
        return rr__fail(err, RR_E_ARG, "scores must not be NULL");
    s = rr_submit(engine, query, docs, n, NULL, NULL, NULL, &job, err);
    if (s != RR_OK)
        return s;
    s = rr_wait(job, err);
    if (s == RR_OK)
        memcpy(scores, job->scores, n * sizeof *scores);
    rr_job_free(job);
    return s;
}
