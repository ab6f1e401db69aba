/* pool.c - see pool.h.
 *
 * One lock guards the loop that is open and the number of workers inside it. A worker that wakes
 * after the loop was closed goes back to sleep, so a run never waits for a thread that is slow to
 * wake: it waits only for those that took an item. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "base/pool.h"

#include "base/clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct worker {
    rr__pool *pool;
    pthread_t thread;
    int       index;
} worker;

struct rr__pool {
    pthread_mutex_t run_lock; /* held by the caller of run           */
    pthread_mutex_t lock;     /* guards what follows up to `inside`  */
    pthread_cond_t  work, idle;
    rr__pool_fn     fn; /* the open loop; NULL = none          */
    void           *arg;
    size_t          n;
    int             inside;  /* workers in the loop */
    atomic_size_t   next;    /* first item nobody has taken */
    atomic_uint     turn;    /* counts loops; what spinning workers watch */
    atomic_int      closing; /* the threads should end */
    int             n_worker, spin_us;
    worker          workers[]; /* [n_worker], index 1.. */
};

int rr__cores(void) {
    cpu_set_t set;
    int       n = 0;

    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

static void take_items(rr__pool *p, rr__pool_fn fn, void *arg, size_t n, int index) {
    for (;;) {
        size_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);

        if (i >= n)
            break;
        fn(arg, i, index);
    }
}

/* Look for a new loop for a while without the lock. */
static void spin(rr__pool *p, unsigned seen) {
    int64_t until = rr__now_ns() + (int64_t)p->spin_us * 1000;

    while (atomic_load_explicit(&p->turn, memory_order_relaxed) == seen &&
           !atomic_load_explicit(&p->closing, memory_order_relaxed) && rr__now_ns() < until)
        ;
}

static void *worker_main(void *arg) {
    worker   *w = arg;
    rr__pool *p = w->pool;
    unsigned  seen = 0;

    for (;;) {
        rr__pool_fn fn;
        void       *fn_arg;
        size_t      n;

        if (p->spin_us)
            spin(p, seen);
        pthread_mutex_lock(&p->lock);
        while (!atomic_load(&p->closing) && (!p->fn || atomic_load(&p->turn) == seen))
            pthread_cond_wait(&p->work, &p->lock);
        if (atomic_load(&p->closing)) {
            pthread_mutex_unlock(&p->lock);
            return NULL;
        }
        seen = atomic_load(&p->turn);
        fn = p->fn;
        fn_arg = p->arg;
        n = p->n;
        p->inside++;
        pthread_mutex_unlock(&p->lock);

        take_items(p, fn, fn_arg, n, w->index);

        pthread_mutex_lock(&p->lock);
        if (--p->inside == 0)
            pthread_cond_signal(&p->idle);
        pthread_mutex_unlock(&p->lock);
    }
}

void rr__pool_run(rr__pool *p, size_t n, rr__pool_fn fn, void *arg) {
    if (!p || p->n_worker == 0 || n <= 1 || pthread_mutex_trylock(&p->run_lock) != 0) {
        for (size_t i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    atomic_store(&p->next, 0);
    atomic_fetch_add(&p->turn, 1);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);

    take_items(p, fn, arg, n, 0);

    pthread_mutex_lock(&p->lock);
    p->fn = NULL;
    while (p->inside > 0)
        pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_unlock(&p->run_lock);
}

rr_status rr__pool_open(int threads, int spin_us, rr__pool **out, rr_error *err) {
    int       want = (threads > 0 ? threads : rr__cores()) - 1;
    rr__pool *p = calloc(1, sizeof *p + (size_t)want * sizeof p->workers[0]);

    if (!p)
        return rr__fail(err, RR_E_NOMEM, "thread pool of %d: out of memory", want + 1);
    pthread_mutex_init(&p->run_lock, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->idle, NULL);
    p->spin_us = spin_us;
    for (int i = 0; i < want; i++) {
        int rc;

        p->workers[i] = (worker){.pool = p, .index = i + 1};
        rc = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (rc != 0) {
            rr__pool_close(p);
            return rr__fail(err, RR_E_NOMEM, "thread %d of a pool: %s", i + 1, strerror(rc));
        }
        p->n_worker++;
    }
    *out = p;
    return RR_OK;
}

void rr__pool_close(rr__pool *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->closing, 1);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_worker; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->run_lock);
    free(p);
}

int rr__pool_threads(const rr__pool *p) {
    return p ? p->n_worker + 1 : 1;
}
