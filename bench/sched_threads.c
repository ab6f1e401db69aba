/* sched_threads.c - what the scheduler's threads cost, without a model behind them: a backend that
 * answers at once, or takes a fixed time a token, and clients that submit as fast as they may.
 *
 *     build/bench/sched_threads
 *
 * Prints jobs a second and the time from submit to done for one client and for many, and what a
 * device that is always busy loses between two batches. */
#include "sched/sched.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { JOBS = 20000, DOCS = 100, LEN = 20, CLIENTS = 16 };

static int          us_a_batch; /* what the device takes */
static atomic_llong busy_us;    /* what it took          */

static rr_status null_open(void *weights, void **instance, rr_error *err) {
    *instance = weights;
    return RR_OK;
}

static rr_status null_score(void *instance, const rr__batch *b, float *logits, rr_error *err) {
    int64_t start = rr_now_us();

    memset(logits, 0, (size_t)b->n_seq * sizeof *logits);
    if (us_a_batch > 0) {
        struct timespec t = {0, us_a_batch * 1000L};

        nanosleep(&t, NULL);
    }
    atomic_fetch_add(&busy_us, rr_now_us() - start);
    return RR_OK;
}

static void null_close(void *instance) {
}

static const rr__backend null_backend = {.abi = RR__BACKEND_ABI,
                                         .name = "null",
                                         .open = null_open,
                                         .score = null_score,
                                         .close = null_close};

typedef struct client {
    rr__work        work; /* first */
    rr__sched      *s;
    int32_t         n_doc, n_job;
    int32_t         cu[DOCS + 1], ids[DOCS * LEN];
    float           logits[DOCS];
    double         *us; /* [n_job] */
    int             done;
    pthread_mutex_t lock;
    pthread_cond_t  changed;
} client;

static void on_done(rr__work *w) {
    client *c = (client *)w;

    pthread_mutex_lock(&c->lock);
    c->done = 1;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void *client_main(void *arg) {
    client *c = arg;

    for (int32_t i = 0; i <= c->n_doc; i++)
        c->cu[i] = i * LEN;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    for (int32_t i = 0; i < c->n_job; i++) {
        int64_t start = rr_now_us();

        memset(&c->work, 0, sizeof c->work);
        c->work.task.cu = c->cu;
        c->work.task.n = c->n_doc;
        c->work.ids = c->ids;
        c->work.logits = c->logits;
        c->work.done = on_done;
        c->done = 0;
        if (rr__sched_submit(c->s, &c->work, NULL) != RR_OK)
            exit(1);
        pthread_mutex_lock(&c->lock);
        while (!c->done)
            pthread_cond_wait(&c->changed, &c->lock);
        pthread_mutex_unlock(&c->lock);
        c->us[i] = (double)(rr_now_us() - start);
    }
    return NULL;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const char *what, int n_client, int n_job, int n_doc, int device_us) {
    static const int32_t canary[4] = {0};
    void                *weights[1] = {&us_a_batch};
    rr__sched_opts       o = {.backend = &null_backend,
                              .weights = weights,
                              .n_device = 1,
                              .instances = 1,
                              .max_batch_tokens = 16384,
                              .max_batch_seqs = 1024,
                              .max_length = 512,
                              .max_queue_tokens = 1 << 22,
                              .canary = canary,
                              .n_canary = 4,
                              .probe_us = 20000};
    client              *c = calloc((size_t)n_client, sizeof *c);
    double              *us = calloc((size_t)n_client * (size_t)n_job, sizeof *us);
    pthread_t            thread[CLIENTS];
    size_t               n = (size_t)n_client * (size_t)n_job;
    int64_t              start, took;
    rr__sched           *s;
    rr_stats             st;

    us_a_batch = device_us;
    if (!c || !us || rr__sched_open(&o, &s, NULL) != RR_OK)
        exit(1);
    atomic_store(&busy_us, 0);
    start = rr_now_us();
    for (int i = 0; i < n_client; i++) {
        c[i].s = s;
        c[i].n_doc = n_doc;
        c[i].n_job = n_job;
        c[i].us = us + (size_t)i * (size_t)n_job;
        pthread_create(&thread[i], NULL, client_main, &c[i]);
    }
    for (int i = 0; i < n_client; i++)
        pthread_join(thread[i], NULL);
    took = rr_now_us() - start;
    rr__sched_stats(s, &st);
    rr__sched_close(s);
    qsort(us, n, sizeof *us, by_value);
    printf("%-44s %9.0f jobs/s   p50 %6.0f us   p99 %6.0f us   device busy %5.1f %%   %.1f jobs a "
           "batch\n",
           what, 1e6 * (double)n / (double)took, us[n / 2], us[n * 99 / 100],
           100.0 * (double)atomic_load(&busy_us) / (double)took, (double)n / (double)st.batches);
    free(us);
    free(c);
}

int main(void) {
    measure("1 client, 1 document, no device time", 1, JOBS, 1, 0);
    measure("1 client, 100 documents, no device time", 1, JOBS, DOCS, 0);
    measure("16 clients, 1 document, no device time", CLIENTS, JOBS / CLIENTS, 1, 0);
    measure("16 clients, 100 documents, 2 ms a batch", CLIENTS, 400, DOCS, 2000);
    return 0;
}
