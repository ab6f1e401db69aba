/* runner.c - the thread of one instance: open it, run what the packer hands over, open it anew
 * when it fails.
 *
 * Where the backend has start and finish, the runner starts a batch as soon as it is handed over,
 * also behind one that runs, and a second thread, the waiter, waits for the results in turn. So
 * the device has its next batch before the last has ended. The instance is touched by these two
 * only, and by the runner alone when nothing is under way. */
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

    r->failing = r->abandoned = 0;
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

static rr__batch batch_of(const bin *b) {
    return (rr__batch){b->pack.n_seq, b->pack.n_tok, b->pack.max_len,
                       b->tok,        b->cu,         b->has_seg ? b->seg : NULL};
}

/* The device is through with b. A refused argument says nothing about the device; a failure or a
 * long silence does, and what came behind a failure is run anew: it has done nothing wrong. Lock
 * held. */
static void conclude(runner *r, bin *b, rr_status status) {
    rr__sched *s = r->s;
    bin      **list = r->failing && r->state != RUNNER_HUNG ? &s->orphans : &s->finished;

    b->error.status = status;
    b->next = *list;
    *list = b;
    if (list == &s->finished &&
        (status == RR_E_DEVICE || status == RR_E_NOMEM || r->state == RUNNER_HUNG)) {
        r->error = b->error;
        r->failing = 1;
    }
    rr__sched_wake_packer(s);
}

/* Run one batch. The lock is held on entry and exit. */
static void run_batch(runner *r) {
    rr__sched      *s = r->s;
    bin            *b = r->next;
    const rr__batch batch = batch_of(b);
    rr_status       status;

    r->next = NULL;
    r->running = b;
    b->start_us = rr_now_us();
    r->busy_until_us = b->start_us + (int64_t)b->pack.us;
    rr__sched_wake_packer(s);
    pthread_mutex_unlock(&s->lock);
    b->error = (rr_error){0};
    status = s->o.backend->score(r->instance, &batch, b->logits, &b->error);
    b->end_us = rr_now_us();
    pthread_mutex_lock(&s->lock);
    r->running = NULL;
    r->busy_until_us = 0;
    conclude(r, b, status);
}

/* ---- start and finish ----------------------------------------------------------------------- */

/* b, which ran first, is no longer on the device since end_us; what is behind it has it now. Lock
 * held. */
static void move_up(runner *r, int64_t end_us) {
    bin *b = r->behind;

    r->running = b;
    r->behind = NULL;
    r->busy_until_us = 0;
    if (b) {
        b->start_us = b->start_us > end_us ? b->start_us : end_us;
        r->busy_until_us = b->start_us + (int64_t)b->pack.us;
    }
}

/* Start the next batch, behind one that runs if there is one. The lock is held on entry and
 * exit. */
static void start_batch(runner *r) {
    rr__sched      *s = r->s;
    bin            *b = r->next;
    const rr__batch batch = batch_of(b);
    const int64_t   now = rr_now_us();
    rr_status       status;

    r->next = NULL;
    *(r->running ? &r->behind : &r->running) = b;
    b->start_us = now;
    b->under_way = 0;
    r->busy_until_us = (r->busy_until_us > now ? r->busy_until_us : now) + (int64_t)b->pack.us;
    rr__sched_wake_packer(s);
    pthread_mutex_unlock(&s->lock);
    b->error = (rr_error){0};
    status = s->o.backend->start(r->instance, &batch, &b->error);
    pthread_mutex_lock(&s->lock);
    if (status == RR_OK) {
        b->under_way = 1;
        pthread_cond_signal(&r->started);
        return;
    }
    b->end_us = rr_now_us();
    if (r->running == b) {
        move_up(r, b->end_us); /* nothing is behind it: that would be started here */
    } else {
        r->behind = NULL;
        r->busy_until_us = r->running->start_us + (int64_t)r->running->pack.us;
    }
    conclude(r, b, status);
}

/* The second thread of a runner: wait for what was started, in turn. */
static void *waiter_main(void *arg) {
    runner    *r = arg;
    rr__sched *s = r->s;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        bin      *b;
        rr_status status;

        while (!r->waiter_stop && !(r->running && r->running->under_way))
            pthread_cond_wait(&r->started, &s->lock);
        if (r->waiter_stop)
            break;
        b = r->running;
        pthread_mutex_unlock(&s->lock);
        status = s->o.backend->finish(r->instance, b->logits, &b->error);
        b->end_us = rr_now_us();
        pthread_mutex_lock(&s->lock);
        b->under_way = 0;
        move_up(r, b->end_us);
        conclude(r, b, status);
        pthread_cond_signal(&r->wake);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static rr_status start_waiter(runner *r, rr_error *err) {
    if (!r->s->o.backend->start || pthread_create(&r->waiter, NULL, waiter_main, r) == 0)
        return RR_OK;
    return rr__fail(err, RR_E_NOMEM, "scheduler: no second thread for instance %d", (int)r->index);
}

static void stop_waiter(runner *r) {
    pthread_mutex_lock(&r->s->lock);
    r->waiter_stop = 1;
    pthread_cond_signal(&r->started);
    pthread_mutex_unlock(&r->s->lock);
    pthread_join(r->waiter, NULL);
}

/* ---- the thread ------------------------------------------------------------------------------ */

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
    int        waiting;

    pthread_mutex_lock(&s->lock);
    spare = s->free_bins; /* for probes and checks; one a runner is set aside for it */
    s->free_bins = spare->next;
    pthread_mutex_unlock(&s->lock);

    status = s->o.backend->open(r->weights, &r->instance, &err);
    if (status == RR_OK)
        status = probe(r, spare, &err);
    if (status == RR_OK)
        status = start_waiter(r, &err);
    waiting = status == RR_OK && s->o.backend->start;

    pthread_mutex_lock(&s->lock);
    if (status != RR_OK) {
        r->error = err;
        r->error.status = status;
        r->stop = 1;
    }
    set_state(r, status == RR_OK ? RUNNER_OK : RUNNER_DOWN);
    while (!r->stop || r->next || r->running) {
        if (r->failing && !r->running)
            revive(r, spare);
        else if (!r->failing && r->check_asked != r->check_done && !r->running)
            answer_check(r, spare);
        else if (!r->failing && r->check_asked == r->check_done && r->next && !r->behind)
            (waiting ? start_batch : run_batch)(r);
        else
            pthread_cond_wait(&r->wake, &s->lock);
    }
    spare->next = s->free_bins;
    s->free_bins = spare;
    pthread_mutex_unlock(&s->lock);
    if (waiting)
        stop_waiter(r);
    if (r->instance)
        s->o.backend->close(r->instance);
    pthread_mutex_lock(&s->lock);
    set_state(r, RUNNER_ENDED);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
