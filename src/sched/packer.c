/* packer.c - the thread that owns the queue: takes in what was submitted, hands batches to
 * runners, gives results to their jobs. It holds the lock only to look into the mailboxes. */
#include "sched/inside.h"

#include <math.h>
#include <string.h>

static void hist_add(rr_hist *h, int64_t value, int64_t base) {
    int i = 0;

    while (i < RR_HIST_BUCKETS - 1 && value > base << i)
        i++;
    h->bucket[i]++;
    h->count++;
    h->sum += (uint64_t)(value > 0 ? value : 0);
}

/* The job has all its results: count it and tell its owner. */
static void finish(rr__sched *s, rr__work *w) {
    rr_timing *t = &w->timing;
    int64_t    now = rr_now_us();

    rr__task_free(&w->task);
    t->tokenize_us = w->tokenize_us;
    t->queue_us = (w->started_us ? w->started_us : now) - w->arrived_us;
    t->total_us = w->tokenize_us + now - w->arrived_us;
    pthread_mutex_lock(&s->lock);
    switch (w->error.status) {
    case RR_OK:
        hist_add(&s->stats.tokenize_us, t->tokenize_us, 16);
        hist_add(&s->stats.queue_us, t->queue_us, 16);
        hist_add(&s->stats.forward_us, t->forward_us, 16);
        hist_add(&s->stats.total_us, t->total_us, 16);
        break;
    case RR_E_TIMEOUT:
        s->stats.expired++;
        break;
    case RR_E_CANCELED:
        s->stats.canceled++;
        break;
    default:
        s->stats.failed++;
        break;
    }
    pthread_mutex_unlock(&s->lock);
    w->done(w);
}

/* n sequences of w will have no result; the first reason is the one to tell. */
static void lose(rr__sched *s, rr__work *w, int32_t n, const rr_error *why) {
    if (w->error.status == RR_OK)
        w->error = *why;
    w->pending -= n;
    if (w->pending == 0)
        finish(s, w);
}

/* Take what is left of a job out of the books; the queue has let go of it. */
static void unbook(rr__sched *s, int32_t docs, double tokens, double sumsq, int jobs) {
    pthread_mutex_lock(&s->lock);
    s->queued_tokens -= tokens;
    s->queued_sumsq -= sumsq;
    s->queued_jobs -= jobs;
    s->stats.queued_docs -= docs;
    pthread_mutex_unlock(&s->lock);
}

/* Fail what is still queued of w. */
static void drop(rr__sched *s, rr__work *w, const rr_error *why) {
    int32_t n = w->task.left;

    if (n == 0)
        return;
    rr__queue_remove(&s->queue, &w->task);
    unbook(s, n, w->task.tokens, w->task.sumsq, 1);
    lose(s, w, n, why);
}

static void take_in(rr__sched *s, rr__work *w) {
    while (w) {
        rr__work *next = w->next;
        rr_error  err = {0};

        w->pending = w->task.n;
        if (rr__queue_add(&s->queue, &w->task, rr_now_us(), &err) != RR_OK) {
            unbook(s, w->task.n, w->task.tokens, w->task.sumsq, 1);
            lose(s, w, w->task.n, &err);
        }
        w = next;
    }
}

static void drop_canceled(rr__sched *s) {
    static const rr_error why = {RR_E_CANCELED, "the job was canceled"};

    /* From the end: what a removal moves to a lower place is looked at later, what it moves to
     * place i at once. */
    for (size_t i = s->queue.n; i > 0;) {
        rr__work *w = (rr__work *)s->queue.heap[i - 1];

        if (atomic_load(&w->cancel))
            drop(s, w, &why);
        else
            i--;
        if (i > s->queue.n)
            i = s->queue.n;
    }
}

static void drop_expired(rr__sched *s) {
    static const rr_error why = {RR_E_TIMEOUT, "deadline passed, or too near, before scoring"};
    rr__task             *t;

    while ((t = rr__queue_expired(&s->queue, rr_now_us()))) {
        rr__work *w = (rr__work *)t;
        int32_t   n = w->pending - w->in_flight;

        unbook(s, n, t->tokens, t->sumsq, 1);
        lose(s, w, n, &why);
    }
}

/* Give up on all that is queued: no instance is left. */
static void drop_all(rr__sched *s, const rr_error *why) {
    while (s->queue.n > 0)
        drop(s, (rr__work *)s->queue.heap[0], why);
}

static int32_t seq_of(const rr__part *p, int32_t i) {
    return p->task->order ? p->task->order[p->first + i] : p->first + i;
}

/* The batch failed, or never came back: every job in it fails, and so does the rest of each. */
static void fail_bin(rr__sched *s, bin *b, const rr_error *why) {
    for (int32_t i = 0; i < b->pack.n_part; i++) {
        rr__work *w = (rr__work *)b->pack.part[i].task;
        int32_t   n = b->pack.part[i].n, left = w->task.left;

        w->in_flight -= n;
        if (left > 0) {
            rr__queue_remove(&s->queue, &w->task);
            unbook(s, left, w->task.tokens, w->task.sumsq, 1);
        }
        lose(s, w, n + left, why);
    }
    b->pack.n_part = 0;
}

/* Results to their jobs. */
static void scatter(rr__sched *s, bin *b) {
    for (int32_t i = 0; i < b->pack.n_part; i++) {
        const rr__part *p = &b->pack.part[i];
        rr__work       *w = (rr__work *)p->task;
        const float    *logit = b->logits + p->slot;
        int             finite = 1;

        for (int32_t k = 0; k < p->n; k++) {
            w->logits[seq_of(p, k)] = logit[k];
            finite &= isfinite(logit[k]) != 0;
        }
        w->in_flight -= p->n;
        w->pending -= p->n;
        w->timing.forward_us += b->end_us - b->start_us;
        w->timing.batches++;
        if (!w->started_us || b->start_us < w->started_us)
            w->started_us = b->start_us;
        if (!finite && w->error.status == RR_OK)
            rr__fail(&w->error, RR_E_DEVICE, "a score is not a finite number");
        if (w->pending == 0)
            finish(s, w);
    }
    b->pack.n_part = 0;
}

static void settle(rr__sched *s, bin *list) {
    while (list) {
        bin *b = list, *next = b->next;
        int  ok = b->error.status == RR_OK;

        if (ok) {
            pthread_mutex_lock(&s->lock);
            rr__cost_observe(&s->cost, b->pack.tokens, b->pack.sumsq,
                             (double)(b->end_us - b->start_us));
            s->stats.batches++;
            hist_add(&s->stats.batch_tokens, b->pack.n_tok, 1);
            pthread_mutex_unlock(&s->lock);
            scatter(s, b);
        } else {
            fail_bin(s, b, &b->error);
        }
        pthread_mutex_lock(&s->lock);
        b->next = s->free_bins;
        s->free_bins = b;
        pthread_mutex_unlock(&s->lock);
        list = next;
    }
}

/* Write the batch a pack describes: ids end to end. */
static void fill(bin *b) {
    int32_t n_tok = 0;

    b->has_seg = 0;
    b->cu[0] = 0;
    for (int32_t i = 0; i < b->pack.n_part; i++) {
        const rr__part *p = &b->pack.part[i];
        rr__work       *w = (rr__work *)p->task;

        w->in_flight += p->n;
        b->has_seg |= w->seg != NULL;
        for (int32_t k = 0; k < p->n; k++) {
            int32_t seq = seq_of(p, k), start = w->task.cu[seq], len = w->task.cu[seq + 1] - start;

            memcpy(b->tok + n_tok, w->ids + start, (size_t)len * sizeof *b->tok);
            n_tok += len;
            b->cu[p->slot + k + 1] = n_tok;
            b->seg[p->slot + k] = w->seg ? w->seg[seq] : len;
        }
    }
}

/* Pack into b; 0 if nothing came of it. */
static int pack(rr__sched *s, bin *b, int32_t n_idle) {
    int32_t jobs = 0;

    b->pack.part = b->part;
    if (!rr__queue_pack(&s->queue, n_idle, rr_now_us(), &b->pack))
        return 0;
    for (int32_t i = 0; i < b->pack.n_part; i++)
        jobs += b->pack.part[i].task->left == 0;
    unbook(s, b->pack.n_seq, b->pack.queue_tokens, b->pack.queue_sumsq, jobs);
    fill(b);
    return 1;
}

/* The runner that should get a batch next, idle ones first; NULL if none can take one. */
static runner *next_runner(rr__sched *s, int32_t *n_idle) {
    runner *best = NULL;

    *n_idle = 0;
    for (int32_t i = 0; i < s->n_runner; i++) {
        runner *r = &s->runners[i];

        if (!rr__runner_takes(r))
            continue;
        *n_idle += r->busy_until_us == 0;
        if (!best || r->busy_until_us < best->busy_until_us)
            best = r;
    }
    return best;
}

/* Hand batches to runners as long as one is due. Returns when to look again. Lock held. */
static int64_t hand_over(rr__sched *s) {
    for (;;) {
        int32_t n_idle;
        runner *r = next_runner(s, &n_idle);
        bin    *b = s->orphans;
        int64_t due;
        int     packed = 1;

        if (!r)
            return INT64_MAX;
        if (b) {
            s->orphans = b->next;
        } else {
            due = rr__queue_due(&s->queue, rr_now_us(), r->busy_until_us);
            if (due > rr_now_us())
                return due;
            b = s->free_bins;
            if (!b)
                return 0; /* they are all finished, and settled next */
            s->free_bins = b->next;
            pthread_mutex_unlock(&s->lock);
            packed = pack(s, b, n_idle);
            pthread_mutex_lock(&s->lock);
        }
        /* The runner may have failed in the meantime; then the batch waits for another. */
        if (packed && rr__runner_takes(r)) {
            r->next = b;
            pthread_cond_signal(&r->wake);
        } else {
            bin **list = packed ? &s->orphans : &s->free_bins;

            b->next = *list;
            *list = b;
        }
        if (!packed)
            return 0; /* what was queued came too late for its deadline: drop it */
    }
}

/* Batches that nobody will run, and those of devices that hang, fail. Lock held. */
static void give_up(rr__sched *s) {
    rr_error why = {RR_E_DEVICE, "the device does not answer"};

    for (int32_t i = 0; i < s->n_runner; i++) {
        runner *r = &s->runners[i];
        bin    *lost[] = {r->abandoned ? r->running : NULL, r->abandoned ? r->behind : NULL};

        r->abandoned = 0;
        for (int k = 0; k < 2; k++)
            if (lost[k]) {
                pthread_mutex_unlock(&s->lock);
                fail_bin(s, lost[k], &why);
                pthread_mutex_lock(&s->lock);
            }
        if (r->state != RUNNER_OK && r->error.status != RR_OK)
            why = r->error;
    }
    if (rr__sched_alive(s))
        return;
    while (s->orphans) {
        bin *b = s->orphans;

        s->orphans = b->next;
        pthread_mutex_unlock(&s->lock);
        fail_bin(s, b, &why);
        pthread_mutex_lock(&s->lock);
        b->next = s->free_bins;
        s->free_bins = b;
    }
    pthread_mutex_unlock(&s->lock);
    drop_all(s, &why);
    pthread_mutex_lock(&s->lock);
}

/* Nothing queued, nothing on a device that still answers. Lock held. */
static int drained(const rr__sched *s) {
    if (s->inbox || s->finished || s->orphans || s->queue.n > 0 || s->queue.lost)
        return 0;
    for (int32_t i = 0; i < s->n_runner; i++) {
        const runner *r = &s->runners[i];

        if (r->next || (r->running && r->running->pack.n_part > 0) ||
            (r->behind && r->behind->pack.n_part > 0))
            return 0;
    }
    return 1;
}

void *rr__packer_main(void *arg) {
    rr__sched *s = arg;
    int64_t    until;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        rr__work *inbox = s->inbox;
        bin      *finished = s->finished;
        int       cancels = s->cancels;

        s->posted = s->cancels = 0;
        s->inbox = NULL;
        s->inbox_end = &s->inbox;
        s->finished = NULL;
        pthread_mutex_unlock(&s->lock);
        take_in(s, inbox);
        if (cancels)
            drop_canceled(s);
        drop_expired(s);
        pthread_mutex_lock(&s->lock);
        until = hand_over(s);
        pthread_mutex_unlock(&s->lock);
        settle(s, finished);
        pthread_mutex_lock(&s->lock);
        give_up(s);
        if (s->stop && drained(s))
            break;
        if (s->queue.next_deadline_us < until)
            until = s->queue.next_deadline_us;
        while (!s->posted && rr_now_us() < until)
            rr__timedwait(&s->wake_packer, &s->lock, until);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}
