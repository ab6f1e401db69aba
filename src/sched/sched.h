/* sched.h - many requests, few devices: the packer thread and a runner thread an instance.
 *
 *     submit ─> inbox ─> packer ─> runner's next batch ─> runner ─> finished list ─> packer
 *
 * The packer alone owns the queue (queue.h), the work in it and the cost model's use; others post
 * to its inbox under one lock. A runner owns an instance of a backend from open to close. It is
 * handed one batch while it runs another, so a device with work never waits for the packer; where
 * the backend has start and finish, that batch starts behind the other. The packer also takes
 * results apart and calls done.
 *
 * Faults: a failed batch fails its own jobs; its instance is opened anew, at growing intervals, and
 * gets no work until that succeeds. An instance that does not answer rr__sched_check is fenced
 * until its call returns. With no instance left, all that is queued fails, and so do submissions.
 *
 * Floor 5: knows token ids, not text. */
#ifndef RR_SCHED_SCHED_H
#define RR_SCHED_SCHED_H

#include "backend/backend.h"
#include "sched/queue.h"

#include <stdatomic.h>

typedef struct rr__sched rr__sched;

/* One request. The submitter fills the first part and keeps it in place until done is called. */
typedef struct rr__work rr__work;
struct rr__work {
    rr__task       task;   /* cu, n, priority, deadline_us */
    const int32_t *ids;    /* [cu[n]]                      */
    const int32_t *seg;    /* [n] or NULL                  */
    float         *logits; /* [n] written by the scheduler */
    int64_t        tokenize_us, arrived_us;
    uint64_t       n_truncated; /* for the counters */
    void (*done)(rr__work *w);  /* once, on the packer's thread; w may be freed in it */
    /* results */
    rr_error  error; /* status RR_OK, or why it failed */
    rr_timing timing;
    /* the scheduler's own */
    int32_t    pending;   /* sequences without a result      */
    int32_t    in_flight; /* of those, packed into a batch   */
    atomic_int cancel;    /* asked for                  */
    int64_t    started_us;
    rr__work  *next; /* in the inbox */
};

typedef struct rr__sched_opts {
    const rr__backend *backend;
    void *const       *weights; /* [n_device] loaded; outlive the scheduler                  */
    int32_t            n_device, instances; /* instances of each                                */
    int32_t            max_batch_tokens, max_batch_seqs, max_length;
    int64_t            max_queue_tokens;
    int32_t            max_wait_us;
    const int32_t     *canary; /* [n_canary] a pair whose score is watched; copied */
    int32_t            n_canary;
    int32_t            probe_us; /* most time for probe batches at open */
    double             start_us; /* rr__queue_opts.start_us; 0 = default */
} rr__sched_opts;

/* Open every instance, probe its speed, start the threads. */
rr_status rr__sched_open(const rr__sched_opts *o, rr__sched **out, rr_error *err);

/* Finish all work and stop. Returns 0 if a device hangs in a call: then its thread, the scheduler
 * and the weights stay in memory, because the device may still use them. */
int rr__sched_close(rr__sched *s);

/* Admit all of it, or refuse: RR_E_TOO_LARGE (more than the whole queue may hold), RR_E_BUSY,
 * RR_E_TIMEOUT (cannot meet its deadline), RR_E_DEVICE (no instance works). */
rr_status rr__sched_submit(rr__sched *s, rr__work *w, rr_error *err);

/* RR_E_BUSY or RR_E_DEVICE if a request of about so many tokens would be refused now, counted as a
 * refusal: so that nobody tokenizes in vain. */
rr_status rr__sched_admits(rr__sched *s, int64_t tokens, rr_error *err);

/* Drop what is not packed yet. The caller makes sure that w is not done yet. */
void rr__sched_cancel(rr__sched *s, rr__work *w);

/* Score the canary through every instance. A late answer is a hang only if the process had
 * processors to run on; under load this may take much longer than timeout_us. check.c */
rr_status rr__sched_check(rr__sched *s, int64_t timeout_us, rr_error *err);
int64_t   rr__sched_backlog_us(rr__sched *s);
void      rr__sched_stats(rr__sched *s, rr_stats *out); /* all but the cache's counters */

#endif
