/* queue.h - which sequences run together, and when: the packer's queue without threads or clock.
 *
 * One thread owns it and passes the time in, so that the scheduler (sched.c) and the simulation
 * (bench/sched.c) run the same code. It knows lengths, ages, deadlines, priorities and costs.
 *
 * Order. Jobs run by priority, and within one priority in the order in which they would finish if
 * the device were shared evenly among them, token by token (a job's tag: the virtual time at which
 * it came plus its tokens). So a small job passes a large one at the next batch, jobs of one
 * size run first come first served, and no job finishes later than it would under even sharing.
 *
 * Batches. Sequences are taken in that order until a limit is reached: tokens, sequences, or the
 * predicted time, which keeps batches as short as is cheap, for the sake of those who come next. On
 * a padded backend a batch takes sequences of one length group only. */
#ifndef RR_SCHED_QUEUE_H
#define RR_SCHED_QUEUE_H

#include "base/error.h"
#include "sched/cost.h"

enum { RR__GROUPS = 16 }; /* of lengths, for padded backends */

/* The sequences of one request. The owner fills the first part, calls rr__task_init, and leaves it
 * alone while left > 0. */
typedef struct rr__task {
    const int32_t *cu; /* [n + 1] sequence i has cu[i + 1] - cu[i] tokens */
    int32_t        n;
    int32_t        priority;    /* smaller first */
    int64_t        deadline_us; /* 0 = none      */
    /* the queue's own */
    int32_t  left;          /* sequences that are queued; 0 = the queue does not know this task */
    double   tokens, sumsq; /* of those, as the cost model counts them                          */
    double   tag;           /* virtual finishing time, in tokens                                */
    uint64_t serial;        /* breaks ties: first come first                                    */
    int32_t *order;         /* padded: [n] sequences by group, then the next and the end of each
                               group; ragged: NULL, they go in input order                      */
    size_t   at;            /* place in the heap                                                */
    struct rr__task *lost;  /* next of those that cannot meet their deadline                    */
} rr__task;

typedef enum rr__order {
    RR__ORDER_FAIR, /* as above */
    RR__ORDER_FIFO  /* first come first served: for comparison in bench/sched */
} rr__order;

typedef struct rr__queue_opts {
    int32_t   max_tokens, max_seqs; /* of a batch */
    int32_t   padded;
    int64_t   wait_us;  /* an idle device waits this long for a fuller batch               */
    int64_t   lead_us;  /* pack this long before a busy device is predicted to finish      */
    double    waste;    /* a batch is long enough when its start is this share of it ...   */
    double    start_us; /* ... where a start counts this much at least: threads wake for it; */
    double    crowd;    /* twice that with so many jobs queued, and so on: the more there
                          are, the more throughput is worth to all of them; 0 = never     */
    double    quiet;    /* longer where jobs come seldom: so many times the length at which
                          starts and waiting newcomers cost the same; 0 = never           */
    rr__order order;
} rr__queue_opts;

/* A run of sequences of one task inside a batch. */
typedef struct rr__part {
    rr__task *task;
    int32_t   first, n; /* task->order[first .. first + n), or first .. first + n itself */
    int32_t   slot;     /* of the first of them in the batch                            */
} rr__part;

/* A batch on paper. */
typedef struct rr__pack {
    rr__part *part; /* [max_seqs] given by the caller */
    int32_t   n_part, n_seq, n_tok, max_len;
    double    tokens, sumsq; /* as the cost model counts them     */
    double    us;            /* predicted                         */
    double    queue_tokens;  /* what it took from queue.tokens ...*/
    double    queue_sumsq;   /* ... and queue.sumsq               */
} rr__pack;

typedef struct rr__queue {
    rr__queue_opts o;
    rr__cost      *cost;
    rr__task     **heap; /* [n] by priority, then tag */
    size_t         n, cap;
    double   *tags; /* [n_tag] heap: tags of the jobs that even sharing would still be running */
    size_t    n_tag;
    double    now_virtual;
    uint64_t  serial;
    double    tokens, sumsq;    /* of all that is queued */
    int64_t   since_us;         /* when the oldest of it began to wait for company */
    int64_t   came_us;          /* when the last job came                          */
    double    gap_us;           /* between jobs, on average lately                 */
    int64_t   next_deadline_us; /* no deadline in the queue is earlier             */
    rr__task *lost;             /* taken out for their deadline, to be returned */
} rr__queue;

/* cost is read at every call and belongs to the caller. */
void rr__queue_init(rr__queue *q, const rr__queue_opts *o, rr__cost *cost);
void rr__queue_free(rr__queue *q);

/* Sum up the lengths; before the task is queued, on any thread. */
void rr__task_init(rr__task *t, int padded);

/* Free what the queue gave it; when no batch holds a part of it any more. */
void rr__task_free(rr__task *t);

/* Queue a task. Fails only without memory, and then takes nothing. */
rr_status rr__queue_add(rr__queue *q, rr__task *t, int64_t now_us, rr_error *err);

/* Take out what is left of a task (canceled, failed), if anything is. */
void rr__queue_remove(rr__queue *q, rr__task *t);

/* Take out one task whose deadline has passed, or return one that rr__queue_pack found unable to
 * meet it; NULL when there is none. */
rr__task *rr__queue_expired(rr__queue *q, int64_t now_us);

/* When to pack a batch for a device that is predicted to be busy until busy_until_us (0: it is
 * idle). INT64_MAX: nothing is queued. */
int64_t rr__queue_due(const rr__queue *q, int64_t now_us, int64_t busy_until_us);

/* Fill *out with the next batch while n_idle devices have nothing to do; 0 if nothing is queued.
 * Tasks that come up too late for their deadline are put aside for rr__queue_expired. */
int rr__queue_pack(rr__queue *q, int32_t n_idle, int64_t now_us, rr__pack *out);

/* Predictions for work that is admitted but may not be queued yet; they read only q->o and q->cost.
 * us to run so much of it in batches: */
double rr__queue_drain_us(const rr__queue *q, double tokens, double sumsq);
/* us of device time until t is done, if it comes behind so much work of so many jobs: */
double rr__queue_until_us(const rr__queue *q, double tokens, double sumsq, int64_t jobs,
                          const rr__task *t);

#endif
