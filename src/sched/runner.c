/* runner.c - the thread of one instance: open it, run what the packer hands over, open it anew
 * when it fails. The instance is touched by this thread only, as device libraries like it. */
#include "sched/inside.h"

#include <math.h>

enum { MAX_BACKOFF_US = 30000000, FIRST_BACKOFF_US = 20000 };

/* Score n copies of `len` tokens, the canary's over and over. Uses a bin's memory. */
static rr_status score_probe(runner *r, bin *b, int32_t n, int32_t len, float *logit,
                             int64_t *took_us, rr_error *err) {
    const rr__sched *s = r->s;
    rr__batch        batch = {n, n * len, len, b->tok, b->cu, NULL};
    int64_t          start;
    rr_status        status;

    for (int32_t i = 0; i < n * len; i++)
        b->tok[i] = s->canary[i % len % s->o.n_canary];
    for (int32_t i = 0; i <= n; i++)
        b->cu[i] = i * len;
    start = rr_now_us();
    status = s->o.backend->score(r->instance, &batch, b->logits, err);
    *took_us = rr_now_us() - start;
    *logit = b->logits[0];
    return status;
}

/* The canary again: same value as at first? */
static rr_status check_canary(runner *r, bin *b, rr_error *err) {
    float     logit;
    int64_t   us;
    float     near = r->s->o.backend->drift > 0 ? r->s->o.backend->drift : 1e-3f;
    rr_status status = score_probe(r, b, 1, r->s->o.n_canary, &logit, &us, err);

    if (status != RR_OK)
        return rr__fail_prefix(err, status, "instance %d", (int)r->index);
    if (!(fabsf(logit - r->canary) <= near * (1 + fabsf(r->canary))))
        return rr__fail(err, RR_E_DEVICE,
                        "instance %d: the check pair scores %.6f, at open it was %.6f",
                        (int)r->index, (double)logit, (double)r->canary);
    return RR_OK;
}

/* First use: the canary's value, and how long batches of a few shapes take, small ones first,
 * until the time for it is used up. */
static rr_status probe(runner *r, bin *b, rr_error *err) {
    static const int32_t shapes[][2] = {{1, 32},  {1, 128},  {4, 64},  {1, 512},
                                        {8, 128}, {16, 256}, {4, 512}, {64, 128}};
    rr__sched           *s = r->s;
    int64_t              us, spent = 0;
    float                logit;
    rr_status            status = score_probe(r, b, 1, s->o.n_canary, &r->canary, &us, err);

    if (status == RR_OK && !isfinite(r->canary))
        status = rr__fail(err, RR_E_DEVICE, "the check pair's score is not a number");
    if (status != RR_OK || r->index > 0)
        return status;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && us < s->o.probe_us; i++) {
        int32_t n = shapes[i][0], len = shapes[i][1];
        double  tokens = (double)n * len, sumsq = tokens * len;

        if (len > s->o.max_length || n > s->o.max_batch_seqs || n * len > s->o.max_batch_tokens)
            continue;
        if (i > 0 && (double)spent + rr__cost_batch(&s->cost, tokens, sumsq) > s->o.probe_us)
            break;
        status = score_probe(r, b, n, len, &logit, &us, err);
        if (status != RR_OK)
            return status;
        spent += us;
        rr__cost_probe(&s->cost, tokens, sumsq, (double)us);
    }
    if (s->cost.n == 0) /* too slow for any: the canary itself has to do */
        rr__cost_probe(&s->cost, s->o.n_canary, (double)s->o.n_canary * s->o.n_canary, (double)us);
    return RR_OK;
}

static void set_state(runner *r, runner_state state) {
    r->state = state;
    r->attempts = state == RUNNER_OK ? 0 : r->attempts;
    pthread_cond_broadcast(&r->s->changed);
    rr__sched_wake_packer(r->s);
}

/* Close and open the instance until it works again. The lock is held on entry and exit. */
static void revive(runner *r, bin *spare) {
    rr__sched *s = r->s;
    int64_t    wait_us = 0;

    if (r->next) { /* another instance may run it */
        r->next->next = s->orphans;
        s->orphans = r->next;
        r->next = NULL;
    }
    set_state(r, RUNNER_DOWN);
    while (!r->stop) {
        rr_error  err = {0};
        rr_status status;
        int64_t   until = rr_now_us() + wait_us;

        while (!r->stop && rr_now_us() < until)
            rr__timedwait(&r->wake, &s->lock, until);
        if (r->stop)
            break;
        pthread_mutex_unlock(&s->lock);
        if (r->instance)
            s->o.backend->close(r->instance);
        r->instance = NULL;
        status = s->o.backend->open(r->weights, &r->instance, &err);
        if (status == RR_OK)
            status = check_canary(r, spare, &err);
        pthread_mutex_lock(&s->lock);
        if (status == RR_OK) {
            set_state(r, RUNNER_OK);
            return;
        }
        r->error = err;
        r->attempts++;
        wait_us = wait_us ? 2 * wait_us : FIRST_BACKOFF_US;
        wait_us = wait_us < MAX_BACKOFF_US ? wait_us : MAX_BACKOFF_US;
        set_state(r, RUNNER_DOWN);
    }
}

/* Run one batch. The lock is held on entry and exit. */
static void run_batch(runner *r, bin *spare) {
    rr__sched *s = r->s;
    bin       *b = r->next;
    rr__batch  batch = {b->pack.n_seq, b->pack.n_tok, b->pack.max_len,
                        b->tok,        b->cu,         b->has_seg ? b->seg : NULL};
    rr_status  status;

    r->next = NULL;
    r->running = b;
    b->start_us = rr_now_us();
    r->busy_until_us = b->start_us + (int64_t)b->pack.us;
    rr__sched_wake_packer(s);
    pthread_mutex_unlock(&s->lock);
    b->error = (rr_error){0};
    status = s->o.backend->score(r->instance, &batch, b->logits, &b->error);
    b->end_us = rr_now_us();
    b->error.status = status;
    pthread_mutex_lock(&s->lock);
    r->running = NULL;
    r->busy_until_us = 0;
    b->next = s->finished;
    s->finished = b;
    rr__sched_wake_packer(s);
    /* A refused argument says nothing about the device; a failure or a long silence does. */
    if (status == RR_E_DEVICE || status == RR_E_NOMEM || r->state == RUNNER_HUNG) {
        r->error = b->error;
        revive(r, spare);
    }
}

static void answer_check(runner *r, bin *spare) {
    rr__sched *s = r->s;
    uint64_t   asked = r->check_asked;
    rr_error   err = {0};
    rr_status  status;

    r->busy_until_us = rr_now_us() + (int64_t)s->cost.a;
    pthread_mutex_unlock(&s->lock);
    status = check_canary(r, spare, &err);
    pthread_mutex_lock(&s->lock);
    r->busy_until_us = 0;
    r->check_done = asked;
    r->error = err;
    r->error.status = status;
    pthread_cond_broadcast(&s->changed);
    rr__sched_wake_packer(s);
    if (status != RR_OK || r->state == RUNNER_HUNG)
        revive(r, spare);
}

void *rr__runner_main(void *arg) {
    runner    *r = arg;
    rr__sched *s = r->s;
    bin       *spare;
    rr_error   err = {0};
    rr_status  status;

    pthread_mutex_lock(&s->lock);
    spare = s->free_bins; /* for probes and checks; one a runner is set aside for it */
    s->free_bins = spare->next;
    pthread_mutex_unlock(&s->lock);

    status = s->o.backend->open(r->weights, &r->instance, &err);
    if (status == RR_OK)
        status = probe(r, spare, &err);

    pthread_mutex_lock(&s->lock);
    if (status != RR_OK) {
        r->error = err;
        r->error.status = status;
        r->stop = 1;
    }
    set_state(r, status == RR_OK ? RUNNER_OK : RUNNER_DOWN);
    while (!r->stop || r->next) {
        if (r->check_asked != r->check_done)
            answer_check(r, spare);
        else if (r->next)
            run_batch(r, spare);
        else
            pthread_cond_wait(&r->wake, &s->lock);
    }
    spare->next = s->free_bins;
    s->free_bins = spare;
    pthread_mutex_unlock(&s->lock);
    if (r->instance)
        s->o.backend->close(r->instance);
    pthread_mutex_lock(&s->lock);
    set_state(r, RUNNER_ENDED);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
