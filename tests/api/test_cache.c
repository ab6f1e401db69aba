/* test_cache.c - the document cache: hits are exact, memory is bounded, threads may collide. */
#include "api/cache.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rr_str doc_of(char *buf, size_t size, int i) {
    int n = snprintf(buf, size, "document %d, with text enough to be more than a word", i);

    return (rr_str){buf, (size_t)n};
}

static void put(rr__cache *c, int i) {
    char    buf[100];
    int32_t id[3] = {i, i + 1, i + 2};

    rr__cache_put(c, doc_of(buf, sizeof buf, i), id, 3);
}

static int get(rr__cache *c, int i) {
    char    buf[100];
    rr__ids out = {0};
    int     found = rr__cache_get(c, doc_of(buf, sizeof buf, i), &out);

    cr_assert_eq(out.n, found ? 3 : 0);
    for (int k = 0; k < 3 && found; k++)
        cr_assert_eq(out.id[k], i + k);
    rr__ids_free(&out);
    return found;
}

Test(cache, finds_what_was_put_and_nothing_else) {
    rr__cache *c = NULL;
    uint64_t   hits, misses;

    cr_assert_eq(rr__cache_open(1 << 20, &c, NULL), RR_OK);
    for (int i = 0; i < 1000; i += 2)
        put(c, i);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(get(c, i), i % 2 == 0);
    rr__cache_counts(c, &hits, &misses);
    cr_assert_eq(hits, 500);
    cr_assert_eq(misses, 500);
    rr__cache_close(c);
    rr__cache_close(NULL);
    rr__cache_counts(NULL, &hits, &misses);
    cr_assert_eq(hits + misses, 0);
}

Test(cache, empty_documents_and_empty_results) {
    rr__cache *c = NULL;
    rr__ids    out = {0};

    cr_assert_eq(rr__cache_open(1 << 16, &c, NULL), RR_OK);
    cr_assert_eq(rr__cache_get(c, (rr_str){NULL, 0}, &out), 0);
    rr__cache_put(c, (rr_str){NULL, 0}, NULL, 0);
    cr_assert_eq(rr__cache_get(c, (rr_str){"", 0}, &out), 1);
    cr_assert_eq(out.n, 0);
    cr_assert_eq(rr__cache_get(c, (rr_str){"\0", 1}, &out), 0);
    rr__ids_free(&out);
    rr__cache_close(c);
}

/* What is asked for again and again survives a flood of what is not. */
Test(cache, keeps_the_used_within_its_bounds) {
    rr__cache *c = NULL;
    int        kept = 0;
    char      *large = calloc(1, 1 << 20);
    rr__ids    out = {0};

    cr_assert_eq(rr__cache_open(100000, &c, NULL), RR_OK); /* room for about 2,500 of them */
    for (int i = 0; i < 100; i++)
        put(c, i);
    for (int i = 1000; i < 50000; i++) {
        put(c, i);
        if (i % 500 == 0)
            for (int k = 0; k < 100; k++)
                get(c, k);
    }
    for (int i = 0; i < 100; i++)
        cr_assert(get(c, i));
    for (int i = 1000; i < 50000; i++)
        kept += get(c, i);
    cr_assert_gt(kept, 500);
    cr_assert_lt(kept, 2600);
    rr__cache_put(c, (rr_str){large, 1 << 20}, NULL, 0); /* would push out half of it */
    cr_assert_eq(rr__cache_get(c, (rr_str){large, 1 << 20}, &out), 0);
    free(large);
    rr__cache_close(c);
}

static void *hammer(void *arg) {
    rr__cache *c = arg;

    for (int i = 0; i < 20000; i++) {
        int k = i * 7919 % 3000;

        if (!get(c, k))
            put(c, k);
    }
    return NULL;
}

Test(cache, threads_may_collide) {
    rr__cache *c = NULL;
    pthread_t  t[4];

    cr_assert_eq(rr__cache_open(60000, &c, NULL), RR_OK);
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, hammer, c);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    rr__cache_close(c);
}
