/* work.c - a few threads that parse bodies and submit jobs, so that I/O threads never do.
 *
 * First come, first served, with one exception: while a large body waits or is being tokenized,
 * small ones may pass it, as large ones may hold at most all but one of the threads. */
#include "server/gunzip.h"
#include "server/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 256 * 1024 }; /* bytes of a body; about 10 ms of tokenizing on one core */

typedef struct queue {
    rr__request *head, **tail;
} queue;

struct rr__workers {
    pthread_mutex_t lock;
    pthread_cond_t  more;
    queue           small, large;
    int             n_large; /* threads inside a large one */
    int             closing, n;
    pthread_t       threads[]; /* [n] */
};

static void put(queue *q, rr__request *r) {
    r->next = NULL;
    *q->tail = r;
    q->tail = &r->next;
}

static rr__request *get(queue *q) {
    rr__request *r = q->head;

    q->head = r->next;
    if (!q->head)
        q->tail = &q->head;
    return r;
}

static void *worker_main(void *arg) {
    struct rr__workers *w = arg;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        int          large = w->large.head && w->n_large < w->n - 1;
        rr__request *r;

        if (large && w->small.head && w->small.head->start_us < w->large.head->start_us)
            large = 0;
        if (!large && !w->small.head) {
            if (w->closing)
                break;
            pthread_cond_wait(&w->more, &w->lock);
            continue;
        }
        r = get(large ? &w->large : &w->small);
        w->n_large += large;
        pthread_mutex_unlock(&w->lock);
        r->step(r); /* r belongs to another thread from here on */
        pthread_mutex_lock(&w->lock);
        if (large) {
            w->n_large--;
            pthread_cond_signal(&w->more);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

rr_status rr__workers_open(int n, struct rr__workers **out, rr_error *err) {
    struct rr__workers *w = calloc(1, sizeof *w + (size_t)n * sizeof *w->threads);

    if (!w)
        return rr__fail(err, RR_E_NOMEM, "%d workers: out of memory", n);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    w->small.tail = &w->small.head;
    w->large.tail = &w->large.head;
    for (int i = 0; i < n; i++) {
        int rc = pthread_create(&w->threads[i], NULL, worker_main, w);

        if (rc != 0) {
            rr__workers_close(w);
            return rr__fail(err, RR_E_NOMEM, "worker %d: %s", i, strerror(rc));
        }
        pthread_mutex_lock(&w->lock);
        w->n++;
        pthread_mutex_unlock(&w->lock);
    }
    *out = w;
    return RR_OK;
}

void rr__workers_close(struct rr__workers *w) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->closing = 1;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n; i++)
        pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void rr__workers_push(struct rr__workers *w, rr__request *r) {
    pthread_mutex_lock(&w->lock);
    put(r->body_len > (r->gzip ? LARGE / 8 : LARGE) ? &w->large : &w->small, r);
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
}

/* ---- what a worker does ---------------------------------------------------------------------- */

static const struct {
    rr_status   status;
    rr__problem problem;
} problem_of[] = {
    {RR_E_ARG, RR__P_FIELD},         {RR_E_TOO_LARGE, RR__P_TOO_LONG},
    {RR_E_BUSY, RR__P_BUSY},         {RR_E_TIMEOUT, RR__P_TIMEOUT},
    {RR_E_CANCELED, RR__P_CANCELED}, {RR_E_NOMEM, RR__P_UNAVAILABLE},
    {RR_E_DEVICE, RR__P_BACKEND},
};

static void from_engine(rr__request *r, const rr_error *err) {
    rr__problem p = RR__P_BACKEND;

    for (size_t i = 0; i < sizeof problem_of / sizeof problem_of[0]; i++)
        if (problem_of[i].status == err->status)
            p = problem_of[i].problem;
    if (p == RR__P_TOO_LONG && r->opts.truncation != RR_TRUNC_ERROR && !r->ids)
        p = RR__P_TOO_LARGE; /* no pair can be too long: it is the request */
    rr__problem_set(r, p, "%s", err->text);
}

static void write_scores(rr__request *r) {
    r->dialect->write(r);
    r->answer_ready = 1;
    rr__http_wake(r);
}

/* The second of submit and done gets here: the job is over and belongs to the request alone. */
static void finish(rr__request *r) {
    enum { MANY = 512 }; /* results that take an I/O thread more than about half a millisecond */
    const rr_doc_info *info;
    rr_error           err;
    size_t             n = 0;

    rr__watch_job(r->server->watch, r->conn, NULL);
    rr_job_timing(r->job, &r->timing);
    info = rr_job_docs(r->job, &n);
    for (size_t i = 0; info && i < n; i++) {
        r->n_tokens += (uint64_t)info[i].kept;
        r->n_truncated += info[i].truncated != 0;
    }
    if (r->problem == RR__P_NONE && rr_job_status(r->job, &err) != RR_OK)
        from_engine(r, &err);
    if (r->problem == RR__P_NONE && n > MANY) {
        r->step = write_scores;
        rr__workers_push(r->server->workers, r);
    } else {
        rr__http_wake(r);
    }
}

static void on_done(rr_job *job, void *user) {
    rr__request *r = user;

    if (atomic_fetch_sub(&r->parts, 1) == 1)
        finish(r);
}

/* Refuse a request over the limit on tokens, which only the tokenizer can count. */
static void check_tokens(rr__request *r) {
    const int64_t      most = r->server->o.max_tokens;
    size_t             n = 0;
    const rr_doc_info *info = most ? rr_job_docs(r->job, &n) : NULL;
    int64_t            tokens = 0;

    for (size_t i = 0; info && i < n; i++)
        tokens += info[i].kept;
    if (most && tokens > most) {
        rr__problem_set(r, RR__P_TOO_LARGE, "%lld tokens, the limit of a request is %lld",
                        (long long)tokens, (long long)most);
        rr_cancel(r->job);
    }
}

static void submit(rr__request *r) {
    rr_engine *e = r->server->engine;
    rr_error   err;
    rr_status  s;

    atomic_store(&r->parts, 2);
    if (r->ids)
        s = rr_submit_ids(e, r->ids, r->cu, r->seg, r->n, &r->opts, on_done, r, &r->job, &err);
    else if (r->queries)
        s = rr_submit_pairs(e, r->queries, r->docs, r->n, &r->opts, on_done, r, &r->job, &err);
    else
        s = rr_submit(e, r->query, r->docs, r->n, &r->opts, on_done, r, &r->job, &err);
    if (s != RR_OK) {
        from_engine(r, &err);
        rr__http_wake(r);
        return;
    }
    check_tokens(r);
    rr__watch_job(r->server->watch, r->conn, r->job);
    if (atomic_fetch_sub(&r->parts, 1) == 1)
        finish(r);
}

/* Put the body in the place of its compressed form; 0 and the problem if that cannot be. */
static int inflate_body(rr__request *r) {
    rr__server   *s = r->server;
    char         *body;
    size_t        n, cap;
    rr__gunzip_rc rc = rr__gunzip(r->body, r->body_len, (size_t)s->o.max_body, &body, &n, &cap);

    if (rc == RR__GUNZIP_LARGE)
        return rr__problem_set(r, RR__P_TOO_LARGE, "the body, inflated, exceeds %lld bytes",
                               (long long)s->o.max_body);
    if (rc == RR__GUNZIP_NOMEM)
        return rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
    if (rc != RR__GUNZIP_OK)
        return rr__problem_set(r, RR__P_MALFORMED, "the body is not gzip, or not all of it");
    atomic_fetch_add(&s->buffered, (int64_t)cap - (int64_t)r->body_cap);
    free(r->body);
    r->body = body;
    r->body_len = n;
    r->body_cap = cap;
    if (atomic_load(&s->buffered) > s->o.max_buffered)
        return rr__problem_set(r, RR__P_BUSY, "too many bytes of requests are being read");
    return 1;
}

/* The fields of the body into r->fields. */
static int read_fields(rr__request *r) {
    size_t json;
    int    rc;

    if (r->gzip && !inflate_body(r))
        return 0;
    if (r->header_len > (int64_t)r->body_len)
        return rr__problem_set(r, RR__P_FIELD, "Inference-Header-Content-Length exceeds the body");
    json = r->header_len >= 0 ? (size_t)r->header_len : r->body_len;
    rc = rr__body_read(r->body, json, &r->arena, &r->fields, r->text, sizeof r->text);
    r->parsed_us = rr_now_us();
    if (rc == RR__BODY_NOMEM)
        r->problem = RR__P_UNAVAILABLE;
    else if (rc != RR__BODY_OK)
        r->problem = rc == RR__BODY_FIELD ? RR__P_FIELD : RR__P_MALFORMED;
    return rc == RR__BODY_OK;
}

void rr__work(rr__request *r) {
    if (read_fields(r)) {
        if (r->route->op == RR__OP_WORK) {
            r->route->fn(r);
        } else if (rr__take_options(r) && r->dialect->accept(r)) {
            submit(r); /* r belongs to the engine from here on */
            return;
        }
    }
    r->answer_ready = r->problem == RR__P_NONE;
    rr__http_wake(r);
}
