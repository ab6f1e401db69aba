/* fake.h - a backend under a test's control: a sequence's logit is the sum of its ids, batches
 * take as long as told, and calls fail, hang, or answer wrongly on demand. With FAKE_PIPED 1 it
 * has start and finish: what happens to a batch on the device happens in finish. */
#ifndef TESTS_SCHED_FAKE_H
#define TESTS_SCHED_FAKE_H

#include "sched/sched.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef FAKE_PIPED
#define FAKE_PIPED 0
#endif

enum { FAKE_CANARY = 8, FAKE_LOG = 4096 };

typedef struct fake_control {
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    int             closed;     /* the gate: calls wait while it is closed */
    int             waiting;    /* calls at the gate                       */
    int             fail;       /* so many calls from now on fail          */
    int             fail_open;  /* so many opens fail                      */
    int             only;       /* faults hit instances of this weight; 0 = all */
    float           wrong;      /* added to every logit                    */
    int             us_a_token; /* sleep                                   */
    int             compute_us; /* processor time of a call                */
    int             opened, n_log;
    int             fail_start;        /* so many starts fail with ...              */
    rr_status       start_status;      /* ... this, or RR_E_DEVICE                  */
    int             started, finished; /* calls of start and finish that were done  */
    int             most_under_way;
    int32_t         log_tok[FAKE_LOG], log_first[FAKE_LOG]; /* tokens, first id of each batch */
} fake_control;

static fake_control fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Set one field of the control. */
#define FAKE_SET(field, value)                                                                     \
    do {                                                                                           \
        pthread_mutex_lock(&fake.lock);                                                            \
        fake.field = (value);                                                                      \
        pthread_cond_broadcast(&fake.changed);                                                     \
        pthread_mutex_unlock(&fake.lock);                                                          \
    } while (0)

static void fake_await_waiting(int n) {
    pthread_mutex_lock(&fake.lock);
    while (fake.waiting < n)
        pthread_cond_wait(&fake.changed, &fake.lock);
    pthread_mutex_unlock(&fake.lock);
}

static void sleep_us(int64_t us) {
    struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};

    nanosleep(&t, NULL);
}

static void compute_us(int64_t us) {
    struct timespec t0, t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
    do
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    while ((t.tv_sec - t0.tv_sec) * 1000000 + (t.tv_nsec - t0.tv_nsec) / 1000 < us);
}

static int hit(const void *instance) {
    return fake.only == 0 || *(const int *)instance == fake.only;
}

typedef struct fake_instance {
    int weight; /* first: faults pick by it */
    struct {
        rr__batch b;
        int32_t   tok[1000], cu[65];
    } slot[2];
    int started, finished;
} fake_instance;

static rr_status fake_open(void *weights, void **instance, rr_error *err) {
    rr_status s = RR_OK;

    pthread_mutex_lock(&fake.lock);
    if (fake.fail_open > 0 && hit(weights)) {
        fake.fail_open--;
        s = rr__fail(err, RR_E_DEVICE, "fake: open fails");
    } else {
        fake_instance *i = calloc(1, sizeof *i);

        fake.opened++;
        i->weight = *(const int *)weights;
        *instance = i;
    }
    pthread_mutex_unlock(&fake.lock);
    return s;
}

static rr_status fake_run(void *instance, const rr__batch *b, float *logits, rr_error *err) {
    rr_status s = RR_OK;
    float     wrong;
    int64_t   us, computed;

    pthread_mutex_lock(&fake.lock);
    if (fake.closed && hit(instance)) {
        fake.waiting++;
        pthread_cond_broadcast(&fake.changed);
        while (fake.closed)
            pthread_cond_wait(&fake.changed, &fake.lock);
        fake.waiting--;
    }
    if (fake.n_log < FAKE_LOG) {
        fake.log_tok[fake.n_log] = b->n_tok;
        fake.log_first[fake.n_log++] = b->tok[0];
    }
    if (fake.fail > 0 && hit(instance)) {
        fake.fail--;
        s = rr__fail(err, RR_E_DEVICE, "fake: device on fire");
    }
    wrong = hit(instance) ? fake.wrong : 0;
    us = (int64_t)fake.us_a_token * b->n_tok;
    computed = fake.compute_us;
    pthread_mutex_unlock(&fake.lock);
    if (us > 0)
        sleep_us(us);
    compute_us(computed);
    for (int32_t i = 0; i < b->n_seq && s == RR_OK; i++) {
        logits[i] = wrong;
        for (int32_t t = b->cu[i]; t < b->cu[i + 1]; t++)
            logits[i] += (float)b->tok[t];
    }
    return s;
}

static rr_status fake_score(void *instance, const rr__batch *b, float *logits, rr_error *err) {
    fake_instance *i = instance;

    pthread_mutex_lock(&fake.lock);
    if (i->started !=
        i->finished) /* the promise of backend.h; cr_assert is for the test's thread */
        abort();
    pthread_mutex_unlock(&fake.lock);
    return fake_run(instance, b, logits, err);
}

static rr_status fake_start(void *instance, const rr__batch *b, rr_error *err) {
    fake_instance *i = instance;
    const int      at = i->started % 2;
    rr_status      s = RR_OK;

    pthread_mutex_lock(&fake.lock);
    if (i->started - i->finished == 2)
        abort();
    if (fake.fail_start > 0 && hit(instance)) {
        fake.fail_start--;
        s = rr__fail(err, fake.start_status ? fake.start_status : RR_E_DEVICE, "fake: no start");
    } else {
        memcpy(i->slot[at].tok, b->tok, (size_t)b->n_tok * sizeof *b->tok);
        memcpy(i->slot[at].cu, b->cu, ((size_t)b->n_seq + 1) * sizeof *b->cu);
        i->slot[at].b = *b;
        i->slot[at].b.tok = i->slot[at].tok;
        i->slot[at].b.cu = i->slot[at].cu;
        i->started++;
        fake.started++;
        if (i->started - i->finished > fake.most_under_way)
            fake.most_under_way = i->started - i->finished;
        pthread_cond_broadcast(&fake.changed);
    }
    pthread_mutex_unlock(&fake.lock);
    return s;
}

static rr_status fake_finish(void *instance, float *logits, rr_error *err) {
    fake_instance *i = instance;
    rr_status      s;

    pthread_mutex_lock(&fake.lock);
    if (i->started == i->finished)
        abort();
    pthread_mutex_unlock(&fake.lock);
    s = fake_run(instance, &i->slot[i->finished % 2].b, logits, err);
    pthread_mutex_lock(&fake.lock);
    i->finished++;
    fake.finished++;
    pthread_mutex_unlock(&fake.lock);
    return s;
}

static void fake_close(void *instance) {
    fake_instance *i = instance;

    if (i->started != i->finished)
        abort();
    free(i);
}

static const rr__backend fake_backend = {.abi = RR__BACKEND_ABI,
                                         .name = "fake",
                                         .open = fake_open,
                                         .score = fake_score,
                                         .start = FAKE_PIPED ? fake_start : NULL,
                                         .finish = FAKE_PIPED ? fake_finish : NULL,
                                         .close = fake_close};

static int   fake_weight[4] = {1, 2, 3, 4};
static void *fake_weights[4] = {&fake_weight[0], &fake_weight[1], &fake_weight[2], &fake_weight[3]};
static const int32_t fake_canary[FAKE_CANARY] = {0, 1, 2, 3, 4, 5, 6, 7};

static rr__sched_opts fake_opts(void) {
    return (rr__sched_opts){.backend = &fake_backend,
                            .weights = fake_weights,
                            .n_device = 1,
                            .instances = 1,
                            .max_batch_tokens = 1000,
                            .max_batch_seqs = 64,
                            .max_length = 1000,
                            .max_queue_tokens = 1 << 22,
                            .canary = fake_canary,
                            .n_canary = FAKE_CANARY,
                            .start_us = 1e9}; /* tokens limit a batch, not time */
}

static rr__sched *fake_sched(const rr__sched_opts *o) {
    rr__sched *s = NULL;
    rr_error   err = {0};

    cr_assert_eq(rr__sched_open(o, &s, &err), RR_OK, "%s", err.text);
    return s;
}

/* A job of n sequences of len tokens, every id the same. */
typedef struct fake_job {
    rr__work        work; /* first */
    int32_t        *ids, *cu;
    float          *logits;
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    int             n_done;
} fake_job;

static void fake_done(rr__work *w) {
    fake_job *j = (fake_job *)w;

    pthread_mutex_lock(&j->lock);
    j->n_done++;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

static fake_job *fake_job_new(int32_t n, int32_t len, int32_t id) {
    fake_job *j = calloc(1, sizeof *j);

    j->cu = malloc(((size_t)n + 1) * sizeof *j->cu);
    j->ids = malloc((size_t)n * (size_t)len * sizeof *j->ids);
    j->logits = calloc((size_t)n, sizeof *j->logits);
    for (int32_t i = 0; i <= n; i++)
        j->cu[i] = i * len;
    for (int32_t i = 0; i < n * len; i++)
        j->ids[i] = id;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->changed, NULL);
    j->work.task.cu = j->cu;
    j->work.task.n = n;
    j->work.ids = j->ids;
    j->work.logits = j->logits;
    j->work.done = fake_done;
    return j;
}

static void fake_job_free(fake_job *j) {
    free(j->cu);
    free(j->ids);
    free(j->logits);
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->changed);
    free(j);
}

static int fake_is_done(fake_job *j) {
    int n;

    pthread_mutex_lock(&j->lock);
    n = j->n_done;
    pthread_mutex_unlock(&j->lock);
    return n;
}

/* Wait for done; returns the job's status and checks the results of a good one. */
static rr_status fake_wait(fake_job *j) {
    pthread_mutex_lock(&j->lock);
    while (j->n_done == 0)
        pthread_cond_wait(&j->changed, &j->lock);
    pthread_mutex_unlock(&j->lock);
    cr_assert_eq(j->n_done, 1);
    for (int32_t i = 0; i < j->work.task.n && j->work.error.status == RR_OK; i++)
        cr_assert_eq(j->logits[i], (float)(j->ids[0] * (j->cu[i + 1] - j->cu[i])));
    return j->work.error.status;
}

static fake_job *fake_submit(rr__sched *s, int32_t n, int32_t len, int32_t id) {
    fake_job *j = fake_job_new(n, len, id);
    rr_error  err = {0};

    cr_assert_eq(rr__sched_submit(s, &j->work, &err), RR_OK, "%s", err.text);
    return j;
}

#endif
