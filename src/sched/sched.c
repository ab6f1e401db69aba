/* sched.c - the public side of the scheduler: open, close, submit, cancel, numbers. */
#include "sched/inside.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    BINS = 5,          /* a runner: running, next or behind, two finished, one for probes */
    REVIVALS = 2,      /* failed attempts after which an instance counts as dead */
    CLOSE_US = 2000000 /* how long close waits for a device known to hang        */
};

/* Policy, chosen in bench/sched: docs/SCHEDULING.md. */
#define WASTE    0.05
#define START_US 100
#define CROWD    16
#define QUIET    2
#define LEAD_US  300

void rr__sched_wake_packer(rr__sched *s) {
    s->posted = 1;
    pthread_cond_signal(&s->wake_packer);
}

int rr__timedwait(pthread_cond_t *c, pthread_mutex_t *m, int64_t until_us) {
    struct timespec t = {(time_t)(until_us / 1000000), (long)(until_us % 1000000) * 1000};

    return until_us == INT64_MAX ? pthread_cond_wait(c, m) : pthread_cond_timedwait(c, m, &t);
}

int rr__sched_alive(const rr__sched *s) {
    for (int32_t i = 0; i < s->n_runner; i++) {
        const runner *r = &s->runners[i];

        if (r->state == RUNNER_OK || r->state == RUNNER_OPENING ||
            (r->state == RUNNER_DOWN && r->attempts < REVIVALS))
            return 1;
    }
    return 0;
}

int rr__runner_takes(const runner *r) {
    return r->state == RUNNER_OK && !r->next && !r->behind && !r->failing;
}

static int32_t n_working(const rr__sched *s) {
    int32_t n = 0;

    for (int32_t i = 0; i < s->n_runner; i++)
        n += s->runners[i].state == RUNNER_OK;
    return n > 0 ? n : 1;
}

double rr__sched_in_flight_us(const rr__sched *s, int64_t now_us) {
    double us = 0;

    for (int32_t i = 0; i < s->n_runner; i++) {
        const runner *r = &s->runners[i];

        if (r->busy_until_us > now_us)
            us += (double)(r->busy_until_us - now_us);
        if (r->next)
            us += r->next->pack.us;
    }
    return us;
}

/* ---- open and close ----------------------------------------------------- */

static void cond_init(pthread_cond_t *c) {
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* that of rr_now_us */
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

static void bin_free(bin *b) {
    free(b->part);
    free(b->tok);
    free(b->cu);
    free(b->seg);
    free(b->logits);
    free(b);
}

static rr_status add_bins(rr__sched *s, rr_error *err) {
    size_t seqs = (size_t)s->o.max_batch_seqs, tokens = (size_t)s->o.max_batch_tokens;

    for (int32_t i = 0; i < BINS * s->n_runner; i++) {
        bin *b = calloc(1, sizeof *b);

        if (!b)
            return rr__fail(err, RR_E_NOMEM, "scheduler: out of memory");
        b->next = s->free_bins;
        s->free_bins = b;
        b->part = malloc(seqs * sizeof *b->part);
        b->tok = malloc(tokens * sizeof *b->tok);
        b->cu = malloc((seqs + 1) * sizeof *b->cu);
        b->seg = malloc(seqs * sizeof *b->seg);
        b->logits = malloc(seqs * sizeof *b->logits);
        if (!b->part || !b->tok || !b->cu || !b->seg || !b->logits)
            return rr__fail(err, RR_E_NOMEM, "scheduler: out of memory");
    }
    return RR_OK;
}

/* Every thread has ended. */
static void sched_free(rr__sched *s) {
    while (s->free_bins) {
        bin *b = s->free_bins;

        s->free_bins = b->next;
        bin_free(b);
    }
    for (int32_t i = 0; i < s->n_runner; i++) {
        pthread_cond_destroy(&s->runners[i].wake);
        pthread_cond_destroy(&s->runners[i].started);
    }
    pthread_cond_destroy(&s->wake_packer);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->check_lock);
    rr__queue_free(&s->queue);
    free(s->runners);
    free(s->canary);
    free(s);
}

/* Stop the first n runners; 0 if one hangs in its device. */
static int stop_runners(rr__sched *s, int32_t n) {
    int64_t until = rr_now_us() + CLOSE_US;
    int     clean = 1;

    pthread_mutex_lock(&s->lock);
    for (int32_t i = 0; i < n; i++) {
        s->runners[i].stop = 1;
        pthread_cond_signal(&s->runners[i].wake);
    }
    for (int32_t i = 0; i < n; i++) {
        runner *r = &s->runners[i];

        while (r->state == RUNNER_HUNG && rr_now_us() < until)
            rr__timedwait(&s->changed, &s->lock, until);
        if (r->state == RUNNER_HUNG) {
            clean = 0;
            pthread_detach(r->thread);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        pthread_join(r->thread, NULL);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return clean;
}

/* Start runner i and wait until its instance is open. */
static rr_status start_runner(rr__sched *s, int32_t i, rr_error *err) {
    runner   *r = &s->runners[i];
    rr_status status;

    if (pthread_create(&r->thread, NULL, rr__runner_main, r) != 0)
        return rr__fail(err, RR_E_NOMEM, "scheduler: no thread for instance %d", (int)i);
    pthread_mutex_lock(&s->lock);
    while (r->state == RUNNER_OPENING)
        pthread_cond_wait(&s->changed, &s->lock);
    status = r->stop ? r->error.status : RR_OK;
    if (status != RR_OK && err)
        *err = r->error;
    pthread_mutex_unlock(&s->lock);
    if (status != RR_OK)
        pthread_join(r->thread, NULL);
    return status;
}

rr_status rr__sched_open(const rr__sched_opts *o, rr__sched **out, rr_error *err) {
    rr__queue_opts q = {.max_tokens = o->max_batch_tokens,
                        .max_seqs = o->max_batch_seqs,
                        .padded = o->backend->padded,
                        .wait_us = o->max_wait_us,
                        .lead_us = LEAD_US,
                        .waste = WASTE,
                        .crowd = CROWD,
                        .quiet = QUIET,
                        .start_us = o->start_us > 0 ? o->start_us : START_US};
    rr__sched     *s = calloc(1, sizeof *s);
    int32_t        started = 0;
    rr_status      status;

    if (!s)
        return rr__fail(err, RR_E_NOMEM, "scheduler: out of memory");
    s->o = *o;
    s->inbox_end = &s->inbox;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->check_lock, NULL);
    cond_init(&s->wake_packer);
    cond_init(&s->changed);
    rr__cost_init(&s->cost);
    rr__queue_init(&s->queue, &q, &s->cost);
    s->canary = malloc((size_t)o->n_canary * sizeof *s->canary);
    s->runners = calloc((size_t)o->n_device * (size_t)o->instances, sizeof *s->runners);
    if (!s->canary || !s->runners) {
        status = rr__fail(err, RR_E_NOMEM, "scheduler: out of memory");
        goto fail;
    }
    memcpy(s->canary, o->canary, (size_t)o->n_canary * sizeof *s->canary);
    s->n_runner = o->n_device * o->instances;
    for (int32_t i = 0; i < s->n_runner; i++) {
        s->runners[i].s = s;
        s->runners[i].index = i;
        s->runners[i].weights = o->weights[i / o->instances];
        cond_init(&s->runners[i].wake);
        cond_init(&s->runners[i].started);
    }
    status = add_bins(s, err);
    for (; status == RR_OK && started < s->n_runner; started += status == RR_OK)
        status = start_runner(s, started, err);
    if (status == RR_OK && pthread_create(&s->packer, NULL, rr__packer_main, s) != 0)
        status = rr__fail(err, RR_E_NOMEM, "scheduler: no thread for the packer");
    if (status != RR_OK)
        goto fail;
    *out = s;
    return RR_OK;
fail:
    stop_runners(s, started);
    sched_free(s);
    return status;
}

int rr__sched_close(rr__sched *s) {
    if (!s)
        return 1;
    pthread_mutex_lock(&s->lock);
    s->stop = 1;
    rr__sched_wake_packer(s);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->packer, NULL);
    if (!stop_runners(s, s->n_runner))
        return 0;
    sched_free(s);
    return 1;
}

/* ---- submit and cancel -------------------------------------------------- */

/* Lock held; counts what it refuses. */
static rr_status admit(rr__sched *s, double tokens, rr_error *err) {
    if (!rr__sched_alive(s)) {
        s->stats.failed++;
        for (int32_t i = 0; i < s->n_runner; i++)
            if (s->runners[i].error.text[0])
                return rr__fail(err, RR_E_DEVICE, "no instance works: %s",
                                s->runners[i].error.text);
        return rr__fail(err, RR_E_DEVICE, "no instance works");
    }
    if (tokens > (double)s->o.max_queue_tokens) /* however long it waits */
        return rr__fail(err, RR_E_TOO_LARGE,
                        "request of %.0f tokens; the whole queue holds %lld (max_queue_tokens)",
                        tokens, (long long)s->o.max_queue_tokens);
    if (s->queued_tokens + tokens > (double)s->o.max_queue_tokens) {
        s->stats.rejected_busy++;
        return rr__fail(err, RR_E_BUSY, "%.0f tokens are queued, %.0f more would pass %lld",
                        s->queued_tokens, tokens, (long long)s->o.max_queue_tokens);
    }
    return RR_OK;
}

rr_status rr__sched_admits(rr__sched *s, int64_t tokens, rr_error *err) {
    rr_status status;

    pthread_mutex_lock(&s->lock);
    status = admit(s, (double)tokens, err);
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* Predicted us until w would be done. */
static double predict(const rr__sched *s, const rr__work *w) {
    return (rr__sched_in_flight_us(s, rr_now_us()) + rr__queue_until_us(&s->queue, s->queued_tokens,
                                                                        s->queued_sumsq,
                                                                        s->queued_jobs, &w->task)) /
           n_working(s);
}

rr_status rr__sched_submit(rr__sched *s, rr__work *w, rr_error *err) {
    rr_status status;
    int64_t   now = rr_now_us();

    rr__task_init(&w->task, s->o.backend->padded);
    w->error = (rr_error){0};
    w->timing = (rr_timing){0};
    w->pending = w->in_flight = 0;
    w->started_us = 0;
    w->next = NULL;
    pthread_mutex_lock(&s->lock);
    status = admit(s, w->task.tokens, err);
    if (status == RR_OK && w->task.deadline_us &&
        (double)(w->task.deadline_us - now) < predict(s, w)) {
        s->stats.rejected_deadline++;
        status = rr__fail(err, RR_E_TIMEOUT, "the deadline is in %lld us, this needs about %.0f",
                          (long long)(w->task.deadline_us - now), predict(s, w));
    }
    if (status == RR_OK) {
        w->arrived_us = now;
        s->queued_tokens += w->task.tokens;
        s->queued_sumsq += w->task.sumsq;
        s->queued_jobs++;
        s->stats.queued_docs += w->task.n;
        s->stats.jobs++;
        s->stats.docs += (uint64_t)w->task.n;
        s->stats.tokens += (uint64_t)w->task.cu[w->task.n];
        s->stats.truncated_docs += w->n_truncated;
        *s->inbox_end = w;
        s->inbox_end = &w->next;
        rr__sched_wake_packer(s);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

void rr__sched_cancel(rr__sched *s, rr__work *w) {
    atomic_store(&w->cancel, 1);
    pthread_mutex_lock(&s->lock);
    s->cancels = 1;
    rr__sched_wake_packer(s);
    pthread_mutex_unlock(&s->lock);
}

/* ---- numbers ------------------------------------------------------------ */

int64_t rr__sched_backlog_us(rr__sched *s) {
    double us;

    pthread_mutex_lock(&s->lock);
    us = (rr__sched_in_flight_us(s, rr_now_us()) +
          rr__queue_drain_us(&s->queue, s->queued_tokens, s->queued_sumsq)) /
         n_working(s);
    pthread_mutex_unlock(&s->lock);
    return (int64_t)us;
}

void rr__sched_stats(rr__sched *s, rr_stats *out) {
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    out->queued_tokens = (int64_t)s->queued_tokens;
    for (int32_t i = 0; i < s->n_runner; i++) {
        out->instances_ok += s->runners[i].state == RUNNER_OK;
        out->instances_fenced += s->runners[i].state != RUNNER_OK;
    }
    pthread_mutex_unlock(&s->lock);
}
