/* inside.h - what the packer, the runners and the public side of the scheduler share. */
#ifndef RR_SCHED_INSIDE_H
#define RR_SCHED_INSIDE_H

#include "sched/sched.h"

#include <pthread.h>

/* A batch with its memory, on its way from the packer through a runner and back. */
typedef struct bin {
    rr__pack    pack;
    rr__part   *part;           /* [max_seqs]     */
    int32_t    *tok, *cu, *seg; /* [max_tokens], [max_seqs + 1], [max_seqs] */
    int         has_seg;
    float      *logits;           /* [max_seqs] */
    int64_t     start_us, end_us; /* when the device had it to itself */
    int         under_way;        /* its start has returned, its finish has not */
    rr_error    error;            /* of the batch; status RR_OK = it ran */
    struct bin *next;             /* in a list  */
} bin;

typedef enum runner_state {
    RUNNER_OPENING, /* before rr__sched_open returns              */
    RUNNER_OK,
    RUNNER_DOWN, /* failed; being opened anew                     */
    RUNNER_HUNG, /* did not answer a check; its call is still out */
    RUNNER_ENDED
} runner_state;

typedef struct runner {
    rr__sched     *s;
    pthread_t      thread;
    pthread_cond_t wake;
    pthread_t      waiter;      /* where the backend has start and finish: waits in finish ... */
    pthread_cond_t started;     /* ... or for something to wait for                            */
    int            waiter_stop; /* under s->lock                                               */
    void          *weights, *instance;
    int32_t        index;
    /* under s->lock */
    runner_state state;
    bin         *next, *running, *behind; /* behind: started while `running` runs       */
    int64_t      busy_until_us;           /* predicted, of both; 0 = idle               */
    int          stop, abandoned;         /* abandoned: the packer should give up what it runs  */
    int          failing;                 /* to be opened anew when what it runs has come back  */
    int32_t      attempts;                /* to open it anew, since it last worked */
    uint64_t     check_asked, check_done;
    rr_error     error; /* why it is down, or what the last check found */
    float        canary;
} runner;

struct rr__sched {
    rr__sched_opts o;
    int32_t       *canary;
    rr__queue      queue; /* the packer's; queue.o is constant      */
    rr__cost       cost;  /* written by the packer and under the lock */
    pthread_t      packer;
    int32_t        n_runner;
    runner        *runners;

    pthread_mutex_t lock;                 /* guards all that follows, and the runners */
    pthread_cond_t  wake_packer, changed; /* changed: a runner's state or check */
    int             posted;               /* something for the packer to look at */
    int             cancels, stop;
    rr__work       *inbox, **inbox_end;
    bin            *finished, *orphans, *free_bins;
    rr_stats        stats;
    double          queued_tokens, queued_sumsq; /* admitted and not packed */
    int64_t         queued_jobs;

    pthread_mutex_t check_lock; /* one check at a time */
};

/* runner.c */
void *rr__runner_main(void *arg);

/* packer.c */
void *rr__packer_main(void *arg);

/* sched.c, under the lock: whether some instance works or may soon; predicted us until the batches
 * on and before the devices are done. */
int    rr__sched_alive(const rr__sched *s);
int    rr__runner_takes(const runner *r); /* may the packer hand it a batch? */
double rr__sched_in_flight_us(const rr__sched *s, int64_t now_us);
void   rr__sched_wake_packer(rr__sched *s);
int    rr__timedwait(pthread_cond_t *c, pthread_mutex_t *m, int64_t until_us);

#endif
