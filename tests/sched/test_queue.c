/* test_queue.c - order, limits, fairness, deadlines and grouping of the packer's queue, with the
 * time and the device made up. */
#include "sched/queue.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SEQS = 64, MAX_TOKENS = 4096 };

static rr__cost  cost;
static rr__queue queue;
static rr__part  parts[MAX_SEQS];
static rr__pack  batch;

static void setup_with(rr__queue_opts o) {
    o.max_tokens = MAX_TOKENS;
    o.max_seqs = MAX_SEQS;
    rr__cost_init(&cost);
    cost.a = 100;
    cost.b = 1;
    cost.c = 0;
    if (o.waste == 0)
        o.waste = 1e-9; /* no limit but tokens and sequences */
    rr__queue_init(&queue, &o, &cost);
    batch.part = parts;
}

static rr__task *task_of(int32_t n, int32_t len) {
    rr__task *t = calloc(1, sizeof *t);
    int32_t  *cu = malloc(((size_t)n + 1) * sizeof *cu);

    for (int32_t i = 0; i <= n; i++)
        cu[i] = i * len;
    t->cu = cu;
    t->n = n;
    rr__task_init(t, queue.o.padded);
    return t;
}

static rr__task *add(int32_t n, int32_t len, int32_t priority, int64_t deadline) {
    rr__task *t = task_of(n, len);

    t->priority = priority;
    t->deadline_us = deadline;
    cr_assert_eq(rr__queue_add(&queue, t, 0, NULL), RR_OK);
    return t;
}

static void drop(rr__task *t) {
    rr__task_free(t);
    free((void *)t->cu);
    free(t);
}

/* Sequences of t in the last batch. */
static int32_t share_of(const rr__task *t) {
    int32_t n = 0;

    for (int32_t i = 0; i < batch.n_part; i++)
        n += batch.part[i].task == t ? batch.part[i].n : 0;
    return n;
}

static int pack(void) {
    return rr__queue_pack(&queue, 1, 0, &batch);
}

Test(queue, a_batch_stays_within_its_limits) {
    rr__task *a, *b;

    setup_with((rr__queue_opts){0});
    cr_assert_eq(pack(), 0);
    a = add(100, 40, 0, 0);
    b = add(10, 1000, 0, 0);
    cr_assert(pack());
    cr_assert_eq(batch.n_seq, MAX_SEQS); /* 64 * 40 tokens: sequences are the limit */
    cr_assert_eq(batch.n_tok, MAX_SEQS * 40);
    cr_assert(pack());
    cr_assert_eq(share_of(a), 36);
    cr_assert_eq(share_of(b), 2); /* 1440 + 2000 tokens; a third would pass 4096 */
    cr_assert_eq(batch.part[1].slot, 36);
    cr_assert_eq(batch.max_len, 1000);
    cr_assert(pack());
    cr_assert_eq(share_of(b), 4);
    cr_assert_eq(batch.part[0].first, 2);
    cr_assert(pack());
    cr_assert_eq(share_of(b), 4);
    cr_assert_eq(pack(), 0);
    cr_assert_eq(queue.tokens, 0);
    cr_assert_eq(queue.sumsq, 0);
    drop(a);
    drop(b);
    rr__queue_free(&queue);
}

Test(queue, a_sequence_larger_than_a_batch_goes_alone) {
    rr__task *a;

    setup_with((rr__queue_opts){.waste = 0.5}); /* 200 us a batch */
    a = add(3, 4000, 0, 0);
    for (int i = 0; i < 3; i++) {
        cr_assert(pack());
        cr_assert_eq(batch.n_seq, 1);
    }
    cr_assert_eq(pack(), 0);
    drop(a);
    rr__queue_free(&queue);
}

Test(queue, batches_are_as_long_as_their_start_is_worth) {
    rr__task *a;

    setup_with((rr__queue_opts){.waste = 0.1}); /* start 100 us, so 1000 us in all */
    a = add(60, 10, 0, 0);
    cr_assert(pack());
    cr_assert_eq(batch.n_tok, 600);
    drop(a);
    a = add(200, 10, 0, 0);
    cr_assert(pack());
    cr_assert_eq(batch.n_seq, MAX_SEQS);
    rr__queue_remove(&queue, a);
    drop(a);
    a = add(60, 30, 0, 0);
    cr_assert(pack());
    cr_assert_eq(batch.n_tok, 900);
    cr_assert_float_eq(batch.us, 1000, 1e-6);
    cr_assert(pack());
    cr_assert_eq(batch.n_tok, 900);
    drop(a);
    rr__queue_free(&queue);
}

Test(queue, a_crowd_makes_batches_longer) {
    rr__task *t[30];

    setup_with((rr__queue_opts){.waste = 0.1, .crowd = 10}); /* 1000 us, 4000 with 30 jobs */
    for (int i = 0; i < 30; i++)
        t[i] = add(1, 200, 0, 0);
    cr_assert(pack());
    cr_assert_eq(batch.n_seq, 19);
    for (int i = 0; i < 30; i++) {
        rr__queue_remove(&queue, t[i]);
        drop(t[i]);
    }
    rr__queue_free(&queue);
}

Test(queue, batches_are_long_while_nobody_comes) {
    rr__task *t[200];
    int32_t   seldom;

    setup_with((rr__queue_opts){.waste = 0.1, .quiet = 2});
    t[0] = task_of(60, 60);
    cr_assert_eq(rr__queue_add(&queue, t[0], 1000000, NULL), RR_OK);
    cr_assert(rr__queue_pack(&queue, 1, 1000000, &batch));
    seldom = batch.n_seq;
    cr_assert_gt(seldom, 40);
    rr__queue_remove(&queue, t[0]);
    drop(t[0]);
    for (int i = 0; i < 200; i++) { /* one every 10 us: the length of 1000 us stays */
        t[i] = task_of(60, 60);
        cr_assert_eq(rr__queue_add(&queue, t[i], 1000000 + 10 * i, NULL), RR_OK);
    }
    for (int i = 1; i < 200; i++)
        rr__queue_remove(&queue, t[i]);
    cr_assert(rr__queue_pack(&queue, 1, 1002000, &batch));
    cr_assert_eq(batch.n_seq, 15);
    rr__queue_remove(&queue, t[0]);
    for (int i = 0; i < 200; i++)
        drop(t[i]);
    rr__queue_free(&queue);
}

Test(queue, predictions_of_one_job_behind_others) {
    rr__task *t = task_of(10, 100);

    setup_with((rr__queue_opts){.waste = 0.1}); /* batches of 1000 us, 100 of them start */
    cr_assert_float_eq(rr__queue_drain_us(&queue, 0, 0), 0, 1e-9);
    cr_assert_float_eq(rr__queue_drain_us(&queue, 500, 0), 600, 1e-6);
    cr_assert_float_eq(rr__queue_drain_us(&queue, 9000, 0), 10000, 1e-6);
    t->priority = -1; /* before all others */
    cr_assert_float_eq(rr__queue_until_us(&queue, 90000, 0, 3, t), 1100 + 100, 1e-6);
    t->priority = 0; /* behind its even share of three */
    cr_assert_float_eq(rr__queue_until_us(&queue, 90000, 0, 3, t), 4000 * 1.1 + 100, 1e-6);
    cr_assert_float_eq(rr__queue_until_us(&queue, 2000, 0, 3, t), 3000 * 1.1 + 100, 1e-6);
    t->priority = 1; /* behind all */
    cr_assert_float_eq(rr__queue_until_us(&queue, 90000, 0, 3, t), 91000 * 1.1 + 100, 1e-6);
    drop(t);
    rr__queue_free(&queue);
}

Test(queue, idle_devices_share_what_there_is) {
    rr__task *a;

    setup_with((rr__queue_opts){0});
    a = add(40, 50, 0, 0);
    for (int n_idle = 4; n_idle > 0; n_idle--) {
        cr_assert(rr__queue_pack(&queue, n_idle, 0, &batch));
        cr_assert_eq(batch.n_seq, 10);
    }
    cr_assert_eq(queue.n, 0);
    drop(a);
    a = add(4, 10, 0, 0); /* too little to be worth four starts */
    cr_assert(rr__queue_pack(&queue, 4, 0, &batch));
    cr_assert_eq(batch.n_seq, 4);
    drop(a);
    rr__queue_free(&queue);
}

Test(queue, a_small_job_is_in_the_next_batch) {
    rr__task *big, *small;

    setup_with((rr__queue_opts){0});
    big = add(10000, 200, 0, 0);
    for (int i = 0; i < 7; i++)
        cr_assert(pack());
    small = add(10, 200, 0, 0);
    cr_assert(pack());
    cr_assert_eq(share_of(small), 10);
    cr_assert_eq(batch.part[0].task, small);
    cr_assert_gt(share_of(big), 0); /* and the batch is full all the same */
    rr__queue_remove(&queue, big);
    cr_assert_eq(queue.n, 0);
    drop(big);
    drop(small);
    rr__queue_free(&queue);
}

Test(queue, equal_jobs_run_in_order) {
    rr__task *t[50];

    setup_with((rr__queue_opts){0});
    for (int i = 0; i < 50; i++) {
        t[i] = add(20, 200, 0, 0);
        if (i % 3 == 2) { /* some of the work done in between */
            cr_assert(pack());
            cr_assert_eq(batch.part[0].task, t[i / 3]);
        }
    }
    for (int i = 16; i < 50; i++) {
        cr_assert(pack());
        cr_assert_eq(batch.part[0].task, t[i]);
    }
    for (int i = 0; i < 50; i++)
        drop(t[i]);
    rr__queue_free(&queue);
}

/* The promise behind the order: no job finishes later than if the device were shared evenly from
 * its arrival on, give or take the batch that was on its way. */
Test(queue, no_job_finishes_later_than_by_even_sharing) {
    enum { JOBS = 60 };
    srand(7);
    for (int round = 0; round < 100; round++) {
        rr__task *t[JOBS];
        double    left[JOBS] = {0}, clock = 0, shared = 0, even[JOBS], ours[JOBS];
        int       came = 0, done = 0, gone = 0;

        setup_with((rr__queue_opts){0});
        cost.a = 0;
        while (done < JOBS) {
            if (came < JOBS && (queue.n == 0 || rand() % 3 == 0)) {
                t[came] = add(1 + rand() % (rand() % 10 == 0 ? 800 : 20), 1 + rand() % 100, 0, 0);
                left[came] = t[came]->tokens;
                came++;
                continue;
            }
            cr_assert(pack());
            clock += batch.us;
            for (int32_t i = 0; i < batch.n_part; i++)
                for (int j = 0; j < came; j++)
                    if (batch.part[i].task == t[j] && t[j]->left == 0) {
                        ours[j] = clock;
                        done++;
                    }
            while (shared < clock) { /* the same work by even sharing, in small steps */
                int    n = 0;
                double step = clock - shared;

                for (int j = 0; j < came; j++)
                    n += left[j] > 0;
                for (int j = 0; j < came; j++)
                    if (left[j] > 0 && left[j] * n < step)
                        step = left[j] * n;
                shared += step;
                for (int j = 0; j < came; j++)
                    if (left[j] > 0 && (left[j] -= step / n) < 1e-6) {
                        left[j] = 0;
                        even[j] = shared;
                        gone++;
                    }
                if (n == 0)
                    break;
            }
        }
        cr_assert_eq(gone, JOBS);
        for (int j = 0; j < JOBS; j++) {
            cr_assert_leq(ours[j], even[j] + MAX_TOKENS * cost.b, "round %d job %d: %f after %f",
                          round, j, ours[j], even[j]);
            drop(t[j]);
        }
        rr__queue_free(&queue);
    }
}

Test(queue, priority_goes_before_order) {
    rr__task *low, *mid, *high;

    setup_with((rr__queue_opts){0});
    low = add(1, 10, 50, 0);
    mid = add(30, 100, 0, 0);
    high = add(300, 100, -1, 0);
    cr_assert(pack());
    cr_assert_eq(batch.n_part, 1);
    cr_assert_eq(batch.part[0].task, high);
    rr__queue_remove(&queue, high);
    cr_assert(pack());
    cr_assert_eq(batch.part[0].task, mid);
    cr_assert_eq(batch.part[1].task, low);
    drop(low);
    drop(mid);
    drop(high);
    rr__queue_free(&queue);
}

Test(queue, late_work_is_dropped_before_it_costs_anything) {
    rr__task *t[4];

    setup_with((rr__queue_opts){0});
    t[0] = add(2, 100, 0, 1000);  /* waits behind something more urgent until it is too late */
    t[1] = add(10, 100, 0, 5000); /* fits */
    t[2] = add(20, 100, 0, 1500); /* 2100 us of work: cannot fit even alone */
    t[3] = add(1, 100, 0, 0);
    cr_assert_null(rr__queue_expired(&queue, 999));
    cr_assert_eq(rr__queue_expired(&queue, 1000), t[0]);
    cr_assert_null(rr__queue_expired(&queue, 1000));
    cr_assert(rr__queue_pack(&queue, 1, 1000, &batch));
    cr_assert_eq(batch.n_seq, 11);
    cr_assert_eq(share_of(t[2]), 0);
    cr_assert_eq(rr__queue_expired(&queue, 1000), t[2]);
    cr_assert_null(rr__queue_expired(&queue, 1000));
    cr_assert_eq(queue.n, 0);
    cr_assert_eq(queue.tokens, 0);
    for (int i = 0; i < 4; i++)
        drop(t[i]);
    rr__queue_free(&queue);
}

Test(queue, exactly_the_expired_expire) {
    enum { N = 500 };
    rr__task *t[N], *gone;
    int       expired[N] = {0};

    srand(11);
    setup_with((rr__queue_opts){0});
    for (int i = 0; i < N; i++)
        t[i] = add(1 + rand() % 5, 1 + rand() % 50, rand() % 3, rand() % 4 ? 1 + rand() % 1000 : 0);
    for (int64_t now = 0; now < 1000; now += 250) {
        while ((gone = rr__queue_expired(&queue, now)))
            for (int i = 0; i < N; i++)
                expired[i] += t[i] == gone;
        for (int i = 0; i < N; i++)
            cr_assert_eq(expired[i], t[i]->deadline_us != 0 && t[i]->deadline_us <= now);
        cr_assert_gt(queue.next_deadline_us, now);
    }
    for (int i = 0; i < N; i++) {
        rr__queue_remove(&queue, t[i]);
        drop(t[i]);
    }
    cr_assert_eq(queue.n, 0);
    rr__queue_free(&queue);
}

Test(queue, due_waits_only_for_an_idle_device) {
    rr__task *a;

    setup_with((rr__queue_opts){.wait_us = 10000, .lead_us = 300});
    cr_assert_eq(rr__queue_due(&queue, 50, 0), INT64_MAX);
    a = task_of(1, 10);
    cr_assert_eq(rr__queue_add(&queue, a, 50, NULL), RR_OK);
    cr_assert_eq(rr__queue_due(&queue, 60, 0), 10050);
    cr_assert_eq(rr__queue_due(&queue, 20000, 0), 20000);
    cr_assert_eq(rr__queue_due(&queue, 60, 5000), 4700);
    cr_assert_eq(rr__queue_due(&queue, 4900, 5000), 4900);
    rr__queue_remove(&queue, a);
    drop(a);
    a = task_of(500, 10); /* more than a batch: no reason to wait */
    cr_assert_eq(rr__queue_add(&queue, a, 100, NULL), RR_OK);
    cr_assert_eq(rr__queue_due(&queue, 100, 0), 100);
    rr__queue_remove(&queue, a);
    drop(a);
    rr__queue_free(&queue);
}

/* Lengths 1..n shuffled by a stride, as one task. */
static rr__task *mixed(int32_t n, int32_t stride) {
    rr__task *t = calloc(1, sizeof *t);
    int32_t  *cu = malloc(((size_t)n + 1) * sizeof *cu);

    cu[0] = 0;
    for (int32_t i = 0; i < n; i++)
        cu[i + 1] = cu[i] + 1 + i * stride % n;
    t->cu = cu;
    t->n = n;
    rr__task_init(t, queue.o.padded);
    cr_assert_eq(rr__queue_add(&queue, t, 0, NULL), RR_OK);
    return t;
}

Test(queue, padded_batches_hold_one_length_group) {
    rr__task *t[2];
    char      seen[2][301] = {{0}};
    int       total = 0;
    double    real = 0, padded = 0;

    setup_with((rr__queue_opts){.padded = 1});
    t[0] = mixed(300, 7);
    t[1] = mixed(300, 11);
    while (pack()) {
        int32_t shortest = INT32_MAX;

        cr_assert_leq(batch.n_seq * batch.max_len, MAX_TOKENS);
        cr_assert_leq(batch.n_seq, MAX_SEQS);
        for (int32_t i = 0; i < batch.n_part; i++)
            for (int32_t k = 0; k < batch.part[i].n; k++) {
                const rr__task *of = batch.part[i].task;
                int32_t         seq = of->order[batch.part[i].first + k];
                int32_t         len = of->cu[seq + 1] - of->cu[seq];

                cr_assert_eq(seen[of == t[1]][seq]++, 0);
                total++;
                shortest = len < shortest ? len : shortest;
            }
        cr_assert_geq(shortest, batch.max_len > 16 ? batch.max_len / 2 : 1);
        real += batch.n_tok;
        padded += batch.tokens;
    }
    cr_assert_eq(total, 600);
    cr_assert_lt(padded, 1.25 * real);
    cr_assert_eq(queue.tokens, 0);
    cr_assert_eq(queue.sumsq, 0);
    drop(t[0]);
    drop(t[1]);
    rr__queue_free(&queue);
}

/* Tasks come, go and are packed in any order, and the books stay right. */
Test(queue, random_traffic_keeps_the_books) {
    enum { MOST = 200 };
    rr__task *live[MOST];

    srand(3);
    for (int padded = 0; padded < 2; padded++) {
        int n = 0;

        setup_with((rr__queue_opts){.padded = padded});
        for (int step = 0; step < 20000; step++) {
            int    what = rand() % 3;
            double tokens = 0;

            if (what == 0 && n < MOST)
                live[n++] = add(1 + rand() % 30, 1 + rand() % 500, rand() % 3, 0);
            if (what == 1 && n > 0)
                rr__queue_remove(&queue, live[rand() % n]);
            if (what == 2)
                pack();
            for (int i = 0; i < n; i++) {
                if (live[i]->left == 0) {
                    drop(live[i]);
                    live[i--] = live[--n];
                } else {
                    tokens += live[i]->tokens;
                }
            }
            cr_assert_eq(queue.n, (size_t)n);
            cr_assert_eq(queue.tokens, tokens);
        }
        while (n > 0) {
            rr__queue_remove(&queue, live[--n]);
            drop(live[n]);
        }
        rr__queue_free(&queue);
    }
}
