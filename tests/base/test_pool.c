/* test_pool.c - the thread pool and the arena. */
#include "base/arena.h"
#include "base/pool.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

typedef struct count {
    atomic_int seen[1000];
    atomic_int busy[8]; /* how many calls run as this worker */
    atomic_int clash;
} count;

static void mark(void *arg, size_t i, int worker) {
    count *c = arg;

    if (atomic_fetch_add(&c->busy[worker], 1) != 0)
        c->clash = 1;
    atomic_fetch_add(&c->seen[i], 1);
    atomic_fetch_sub(&c->busy[worker], 1);
}

Test(pool, each_item_runs_once_and_workers_are_exclusive) {
    for (int threads = 1; threads <= 4; threads++) {
        static count c;
        rr__pool    *pool = NULL;

        memset(&c, 0, sizeof c);
        cr_assert_eq(rr__pool_open(threads, threads == 4 ? 20 : 0, &pool, NULL), RR_OK);
        cr_assert_eq(rr__pool_threads(pool), threads);
        for (int round = 1; round <= 200; round++) {
            size_t n = (size_t)(round * 7 % 1000);

            rr__pool_run(pool, n, mark, &c);
            for (size_t i = 0; i < n; i++)
                cr_assert_eq(atomic_exchange(&c.seen[i], 0), 1);
        }
        cr_assert_eq(c.clash, 0);
        rr__pool_close(pool);
    }
}

typedef struct caller {
    rr__pool *pool;
    int       ok;
} caller;

static void add(void *arg, size_t i, int worker) {
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void *call(void *arg) {
    caller *c = arg;

    c->ok = 1;
    for (int round = 0; round < 300; round++) {
        atomic_int sum = 0;

        rr__pool_run(c->pool, 50, add, &sum);
        c->ok &= sum == 50;
    }
    return NULL;
}

Test(pool, callers_may_collide) {
    caller    c[3] = {{0}};
    pthread_t t[3];
    rr__pool *pool = NULL;

    cr_assert_eq(rr__pool_open(2, 0, &pool, NULL), RR_OK);
    for (int i = 0; i < 3; i++) {
        c[i].pool = pool;
        pthread_create(&t[i], NULL, call, &c[i]);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        cr_assert(c[i].ok);
    }
    rr__pool_close(pool);
}

Test(pool, null_means_the_caller_alone) {
    atomic_int sum = 0;

    rr__pool_run(NULL, 9, add, &sum);
    cr_assert_eq(sum, 9);
    rr__pool_close(NULL);
}

Test(arena, gives_aligned_memory_and_refuses_overflow) {
    rr__arena a = {0};

    for (int round = 0; round < 2; round++) {
        for (size_t size = 0; size < 3000; size += 7) {
            unsigned char *p = rr__arena_alloc(&a, size);

            cr_assert_not_null(p);
            cr_assert_eq((uintptr_t)p % 16, 0);
            memset(p, 0xa5, size);
        }
        cr_assert_null(rr__arena_calloc(&a, SIZE_MAX / 2, 4));
        cr_assert_null(rr__arena_alloc(&a, SIZE_MAX - 3));
        cr_assert_str_eq(rr__arena_printf(&a, "%d.%s", 3, "ln1"), "3.ln1");
        cr_assert_str_eq(rr__arena_strndup(&a, "abc", 2), "ab");
        rr__arena_reset(&a);
    }
    rr__arena_free(&a);
}
