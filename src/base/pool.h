/* pool.h - a few threads that share a loop.
 *
 *     rr__pool_open(4, 0, &pool, err);                 // the caller and three more
 *     rr__pool_run(pool, n, fn, arg);                  // fn(arg, i, worker) for every i < n; waits
 *     rr__pool_close(pool);
 *
 * The caller works too. Items are handed out one by one in rising order, each exactly once, to
 * whichever thread is free; worker is 0..threads-1 and never the same in two calls of fn that run
 * at once, so it can index scratch memory. All writes of fn are visible when run returns.
 *
 * Any thread may call run; while another call has the threads, the loop runs on the caller alone
 * (as worker 0, so a pool whose fn uses scratch memory is for one caller). fn must not call run. */
#ifndef RR_BASE_POOL_H
#define RR_BASE_POOL_H

#include "base/error.h"

typedef struct rr__pool rr__pool;
typedef void (*rr__pool_fn)(void *arg, size_t i, int worker);

/* threads: 0 = all cores. spin_us: how long an idle worker looks for work before it sleeps; 0 is
 * right unless runs follow each other within microseconds. */
rr_status rr__pool_open(int threads, int spin_us, rr__pool **out, rr_error *err);
void      rr__pool_close(rr__pool *pool);
int       rr__pool_threads(const rr__pool *pool);
/* pool may be NULL: the caller does it all. */
void rr__pool_run(rr__pool *pool, size_t n, rr__pool_fn fn, void *arg);

/* Cores this process may run on (its affinity mask), at least 1. */
int rr__cores(void);

#endif
