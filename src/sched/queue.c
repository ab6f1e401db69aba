/* queue.c - see queue.h. */
#include "sched/queue.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ASIDE = 64 /* padded: tasks without a sequence of the batch's group that are looked past */
};
enum { GAP_JOBS = 32, GAP_MOST_US = 1000000 }; /* arrivals averaged; a gap counts no more */
#define SPLIT 4 /* spread work over idle devices down to batches of this many starts */

/* Upper ends of the length groups: close enough that padding within one wastes under a quarter. */
static const int32_t group_end[RR__GROUPS] = {16,  32,  48,  64,   96,   128,  192,  256,
                                              384, 512, 768, 1024, 1536, 2048, 4096, INT32_MAX};

static int group_of(int32_t len) {
    int g = 0;

    while (len > group_end[g])
        g++;
    return g;
}

static int32_t seq_len(const rr__task *t, int32_t i) {
    return t->cu[i + 1] - t->cu[i];
}

/* What a sequence counts in the sums of the queue. */
static double weight_of(int32_t len, int padded) {
    int g = padded ? group_of(len) : RR__GROUPS - 1;

    return g < RR__GROUPS - 1 ? group_end[g] : len;
}

void rr__task_init(rr__task *t, int padded) {
    t->left = 0;
    t->tokens = t->sumsq = 0;
    t->order = NULL;
    for (int32_t i = 0; i < t->n; i++) {
        double w = weight_of(seq_len(t, i), padded);

        t->tokens += w;
        t->sumsq += w * w;
    }
}

void rr__task_free(rr__task *t) {
    free(t->order);
    t->order = NULL;
}

void rr__queue_init(rr__queue *q, const rr__queue_opts *o, rr__cost *cost) {
    *q = (rr__queue){.o = *o, .cost = cost, .next_deadline_us = INT64_MAX};
}

void rr__queue_free(rr__queue *q) {
    free(q->heap);
    free(q->tags);
    memset(q, 0, sizeof *q);
}

/* ---- the heap of tasks ------------------------------------------------- */

static int before(const rr__task *a, const rr__task *b) {
    if (a->priority != b->priority)
        return a->priority < b->priority;
    if (a->tag != b->tag)
        return a->tag < b->tag;
    return a->serial < b->serial;
}

static void place(rr__queue *q, rr__task *t, size_t i) {
    q->heap[i] = t;
    t->at = i;
}

/* Put t where it belongs, starting from the free place i. */
static void sift(rr__queue *q, rr__task *t, size_t i) {
    size_t child;

    for (; i > 0 && before(t, q->heap[(i - 1) / 2]); i = (i - 1) / 2)
        place(q, q->heap[(i - 1) / 2], i);
    while ((child = 2 * i + 1) < q->n) {
        if (child + 1 < q->n && before(q->heap[child + 1], q->heap[child]))
            child++;
        if (!before(q->heap[child], t))
            break;
        place(q, q->heap[child], i);
        i = child;
    }
    place(q, t, i);
}

static void push(rr__queue *q, rr__task *t) {
    q->n++;
    sift(q, t, q->n - 1);
}

static void pull(rr__queue *q, rr__task *t) {
    rr__task *last = q->heap[--q->n];

    if (last != t)
        sift(q, last, t->at);
}

/* ---- virtual time: the device shared evenly ---------------------------- */

static void tag_push(rr__queue *q, double tag) {
    size_t i = q->n_tag++;

    for (; i > 0 && tag < q->tags[(i - 1) / 2]; i = (i - 1) / 2)
        q->tags[i] = q->tags[(i - 1) / 2];
    q->tags[i] = tag;
}

static void tag_pop(rr__queue *q) {
    double last = q->tags[--q->n_tag];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < q->n_tag) {
        if (child + 1 < q->n_tag && q->tags[child + 1] < q->tags[child])
            child++;
        if (last <= q->tags[child])
            break;
        q->tags[i] = q->tags[child];
        i = child;
    }
    q->tags[i] = last;
}

/* The devices did so many tokens, or they went away: each of the n jobs that even sharing would
 * be running got one n-th of them. */
static void advance(rr__queue *q, double tokens) {
    while (q->n_tag > 0 && tokens > 0) {
        double step = (q->tags[0] - q->now_virtual) * (double)q->n_tag;

        if (step > tokens) {
            q->now_virtual += tokens / (double)q->n_tag;
            return;
        }
        tokens -= step;
        q->now_virtual = q->tags[0];
        tag_pop(q);
    }
}

/* ---- coming and going --------------------------------------------------- */

static rr_status reserve(rr__queue *q, rr_error *err) {
    size_t     cap = q->cap ? 2 * q->cap : 64;
    rr__task **heap;
    double    *tags;

    /* Tags leave no later than even sharing would have it, so there may be more of them than
     * tasks, but never more than came since the queue was last empty. */
    if (q->n < q->cap && q->n_tag < q->cap)
        return RR_OK;
    heap = realloc(q->heap, cap * sizeof(rr__task *));
    if (heap)
        q->heap = heap;
    tags = heap ? realloc(q->tags, cap * sizeof *tags) : NULL;
    if (!tags)
        return rr__fail(err, RR_E_NOMEM, "queue of %zu jobs: out of memory", q->n);
    q->tags = tags;
    q->cap = cap;
    return RR_OK;
}

/* Sort the sequences of a task by length group. */
static rr_status group(rr__task *t, rr_error *err) {
    int32_t  start[RR__GROUPS + 1] = {0}, *next, *end;
    int32_t *order = malloc(((size_t)t->n + 2 * RR__GROUPS) * sizeof *order);

    if (!order)
        return rr__fail(err, RR_E_NOMEM, "queue: %d sequences: out of memory", (int)t->n);
    for (int32_t i = 0; i < t->n; i++)
        start[group_of(seq_len(t, i)) + 1]++;
    next = order + t->n;
    end = next + RR__GROUPS;
    for (int g = 0; g < RR__GROUPS; g++) {
        start[g + 1] += start[g];
        next[g] = start[g];
        end[g] = start[g + 1];
    }
    for (int32_t i = 0; i < t->n; i++)
        order[start[group_of(seq_len(t, i))]++] = i;
    t->order = order;
    return RR_OK;
}

rr_status rr__queue_add(rr__queue *q, rr__task *t, int64_t now_us, rr_error *err) {
    rr_status s = reserve(q, err);
    double    gap;

    if (s == RR_OK && q->o.padded)
        s = group(t, err);
    if (s != RR_OK)
        return s;
    if (q->n == 0) {
        q->now_virtual = 0; /* nobody is left to be compared with */
        q->n_tag = 0;
        q->since_us = now_us;
    }
    gap = (double)(now_us - q->came_us);
    q->gap_us += ((gap < GAP_MOST_US ? gap : GAP_MOST_US) - q->gap_us) / GAP_JOBS;
    q->came_us = now_us;
    t->left = t->n;
    t->serial = q->serial++;
    t->tag = 0;
    if (q->o.order == RR__ORDER_FAIR) {
        t->tag = q->now_virtual + t->tokens;
        tag_push(q, t->tag);
    }
    q->tokens += t->tokens;
    q->sumsq += t->sumsq;
    if (t->deadline_us && t->deadline_us < q->next_deadline_us)
        q->next_deadline_us = t->deadline_us;
    push(q, t);
    return RR_OK;
}

void rr__queue_remove(rr__queue *q, rr__task *t) {
    if (t->left == 0)
        return;
    pull(q, t);
    q->tokens -= t->tokens;
    q->sumsq -= t->sumsq;
    advance(q, t->tokens);
    t->left = 0;
}

/* Take a task out, for rr__queue_expired to return. */
static void lose(rr__queue *q, rr__task *t) {
    rr__queue_remove(q, t);
    t->lost = q->lost;
    q->lost = t;
}

/* All whose deadline has passed, in one scan from the end: what a removal moves to a lower place is
 * looked at later, what it moves to place i at once. */
static void lose_expired(rr__queue *q, int64_t now_us) {
    int64_t next = INT64_MAX;

    for (size_t i = q->n; i > 0;) {
        rr__task *t = q->heap[i - 1];

        if (t->deadline_us && t->deadline_us <= now_us) {
            lose(q, t);
        } else {
            if (t->deadline_us && t->deadline_us < next)
                next = t->deadline_us;
            i--;
        }
        if (i > q->n)
            i = q->n;
    }
    q->next_deadline_us = next;
}

rr__task *rr__queue_expired(rr__queue *q, int64_t now_us) {
    rr__task *t;

    if (now_us >= q->next_deadline_us)
        lose_expired(q, now_us);
    t = q->lost;
    if (t)
        q->lost = t->lost;
    return t;
}

/* ---- batches ------------------------------------------------------------ */

static double start_of_batch(const rr__queue *q) {
    return q->cost->a > q->o.start_us ? q->cost->a : q->o.start_us;
}

/* How long a batch should take while so many jobs are queued: so long that its start is cheap, but
 * not longer, because those that come next wait for it. */
static double long_enough(const rr__queue *q, size_t jobs) {
    double us = start_of_batch(q) / q->o.waste;

    return q->o.crowd > 0 ? us * (1 + (double)jobs / q->o.crowd) : us;
}

/* Where one job comes every `gap`, batches of T us cost the n queued ones n * a / T of their time
 * and make newcomers wait T / 2: together least at sqrt(2 * n * a * gap). */
static double quiet_enough(const rr__queue *q, int64_t now_us) {
    double gap = q->gap_us, since = (double)(now_us - q->came_us);

    return q->o.quiet * sqrt(2 * (double)q->n * start_of_batch(q) * (since > gap ? since : gap));
}

/* The longer of the two; less where several idle devices can share what is queued. */
static double batch_limit(const rr__queue *q, int32_t n_idle, int64_t now_us) {
    double limit = long_enough(q, q->n), quiet = quiet_enough(q, now_us), share;

    if (quiet > limit)
        limit = quiet;
    if (n_idle > 1) {
        share = q->cost->a + rr__cost_marginal(q->cost, q->tokens, q->sumsq) / n_idle;
        if (share < SPLIT * start_of_batch(q))
            share = SPLIT * start_of_batch(q);
        if (share < limit)
            limit = share;
    }
    return limit;
}

double rr__queue_drain_us(const rr__queue *q, double tokens, double sumsq) {
    double us = rr__cost_marginal(q->cost, tokens, sumsq);
    double most = long_enough(q, 0) - q->cost->a;

    return us + q->cost->a * (most > 0 && us > most ? us / most : us > 0);
}

/* What is queued may go first, but no more of it than even sharing would allow: as much as t itself
 * for each job. With precedence t waits for nobody, without it for all. */
double rr__queue_until_us(const rr__queue *q, double tokens, double sumsq, int64_t jobs,
                          const rr__task *t) {
    double ahead = rr__cost_marginal(q->cost, tokens, sumsq);
    double own = rr__cost_marginal(q->cost, t->tokens, t->sumsq);
    double most = own * (double)jobs, length = long_enough(q, (size_t)jobs);

    if (t->priority < 0)
        ahead = 0;
    else if (t->priority == 0 && most < ahead && q->o.order == RR__ORDER_FAIR)
        ahead = most;
    return (ahead + own) * (1 + q->cost->a / length) + q->cost->a;
}

int64_t rr__queue_due(const rr__queue *q, int64_t now_us, int64_t busy_until_us) {
    double full;

    if (q->n == 0)
        return INT64_MAX;
    if (busy_until_us)
        return busy_until_us - q->o.lead_us > now_us ? busy_until_us - q->o.lead_us : now_us;
    full = rr__cost_batch(q->cost, q->tokens, q->sumsq);
    if (q->o.wait_us == 0 || q->tokens >= q->o.max_tokens || full >= batch_limit(q, 1, now_us))
        return now_us;
    return q->since_us + q->o.wait_us > now_us ? q->since_us + q->o.wait_us : now_us;
}

/* Move sequences of t from its place `first` on, at most `avail`, into the batch until it is full.
 * Returns 1 when it is. */
static int take(rr__queue *q, rr__task *t, int32_t first, int32_t avail, double limit,
                rr__pack *out) {
    rr__part *p = &out->part[out->n_part];
    int32_t   n = 0;
    int       full = 0;

    *p = (rr__part){.task = t, .first = first, .slot = out->n_seq};
    for (; n < avail && !full; n++) {
        int32_t len = seq_len(t, t->order ? t->order[first + n] : first + n);
        int32_t longest = len > out->max_len ? len : out->max_len;
        int32_t seqs = out->n_seq + 1;
        double  w = weight_of(len, q->o.padded);
        double  tokens = q->o.padded ? (double)seqs * longest : out->tokens + len;
        double  sumsq = q->o.padded ? tokens * longest : out->sumsq + (double)len * len;

        if (out->n_seq > 0 && (seqs > q->o.max_seqs || tokens > q->o.max_tokens ||
                               rr__cost_batch(q->cost, tokens, sumsq) > limit)) {
            full = 1;
            break;
        }
        out->n_seq = seqs;
        out->n_tok += len;
        out->max_len = longest;
        out->tokens = tokens;
        out->sumsq = sumsq;
        out->queue_tokens += w;
        out->queue_sumsq += w * w;
        t->tokens -= w;
        t->sumsq -= w * w;
        t->left--;
    }
    p->n = n;
    out->n_part += n > 0;
    return full;
}

/* The group of the longest sequence left. */
static int last_group(const rr__task *t) {
    const int32_t *next = t->order + t->n, *end = next + RR__GROUPS;
    int            g = RR__GROUPS - 1;

    while (next[g] == end[g])
        g--;
    return g;
}

/* It would finish with the batch that it goes into, and that is as long as there is work for it. */
static int hopeless(const rr__queue *q, const rr__task *t, int64_t now_us) {
    double us = rr__cost_batch(q->cost, q->tokens, q->sumsq), limit = batch_limit(q, 1, now_us);
    double own = rr__cost_batch(q->cost, t->tokens, t->sumsq);

    if (us > limit)
        us = limit;
    return t->deadline_us && (double)(t->deadline_us - now_us) < (own > us ? own : us);
}

/* Take out the tasks at the head that could not finish in time if they ran now. */
static void drop_hopeless(rr__queue *q, int64_t now_us) {
    while (q->n > 0 && hopeless(q, q->heap[0], now_us))
        lose(q, q->heap[0]);
}

int rr__queue_pack(rr__queue *q, int32_t n_idle, int64_t now_us, rr__pack *out) {
    rr__task *aside[ASIDE];
    rr__part *part = out->part;
    double    limit;
    int       g = -1, n_aside = 0, full = 0;

    *out = (rr__pack){.part = part};
    drop_hopeless(q, now_us);
    if (q->n == 0)
        return 0;
    limit = batch_limit(q, n_idle, now_us);
    if (q->o.padded)
        g = last_group(q->heap[0]);
    while (q->n > 0 && !full && n_aside < ASIDE) {
        rr__task *t = q->heap[0];

        if (q->o.padded) {
            int32_t *next = t->order + t->n + g, had = t->left;

            full = take(q, t, *next, next[RR__GROUPS] - *next, limit, out);
            *next += had - t->left;
        } else {
            full = take(q, t, t->n - t->left, t->left, limit, out);
        }
        if (t->left > 0 && full)
            break;
        pull(q, t);
        if (t->left > 0)
            aside[n_aside++] = t;
        drop_hopeless(q, now_us);
    }
    while (n_aside > 0)
        push(q, aside[--n_aside]);
    q->tokens -= out->queue_tokens;
    q->sumsq -= out->queue_sumsq;
    q->since_us = now_us;
    out->us = rr__cost_batch(q->cost, out->tokens, out->sumsq);
    advance(q, out->queue_tokens);
    return 1;
}
