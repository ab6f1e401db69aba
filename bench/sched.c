/* sched.c - the real queue and packing code (src/sched/queue.c, cost.c) in front of devices that
 * exist on paper, in simulated time: policies, arrivals and fleets side by side in seconds.
 *
 *     build/bench/sched policies > policies.csv      policy x load, steady and bursty arrivals
 *     build/bench/sched knobs    > knobs.csv         one parameter of the policy at a time
 *     build/bench/sched giant    > giant.csv         a 10-document request behind a 10,000 one
 *     build/bench/sched fleet    > fleet.csv         1 to 1,000 replicas behind a balancer
 *     build/bench/sched equal    > equal.csv         requests exactly alike: how p99 grows with load
 *     build/bench/sched policies cpu 300 25 0.004    another device (bench/sched_cost finds a, b, c)
 *
 * A device takes a + b * tokens + c * sum(len^2) us for a batch, give or take 5 %, and HAND_US more
 * if it was idle, for the threads to wake. bench/sched_plot.py draws the results. */
#include "sched/queue.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HAND_US = 60, MAX_TOKENS = 16384, MAX_SEQS = 1024 };
#define SLO_US     250e3 /* an answer later than this is of no use to who asked */
#define QUEUE_MOST 4e6   /* tokens; beyond, a request is refused                */

/* ---- chance ------------------------------------------------------------- */

/* Traffic, devices and balancers draw from streams of their own, so that every policy meets the
 * same requests at the same times. */
typedef enum stream { TRAFFIC, DEVICE, BALANCER, N_STREAM } stream;
static uint64_t rng[N_STREAM];

static void seed(void) {
    for (int i = 0; i < N_STREAM; i++)
        rng[i] = (uint64_t)i + 7;
}

static double uniform_of(stream s) { /* (0, 1), splitmix64 */
    uint64_t z = rng[s] += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return ((double)((z ^ z >> 31) >> 11) + 0.5) / 9007199254740992.0;
}

static double uniform(void) {
    return uniform_of(TRAFFIC);
}

static double exponential(double mean) {
    return -mean * log(uniform());
}

static double normal(void) {
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* ---- what comes --------------------------------------------------------- */

/* Documents have 180 tokens on average (lognormal, at most 512); requests 1 to `most` documents,
 * few more often than many, and one in `giant_every` has 10,000. */
typedef struct traffic {
    const char *name;
    int32_t     least, most, giant_every;
    int         bursty; /* 100 ms at three times the rate, 200 ms of silence, on average */
    int32_t     bunch;  /* so many come together, within a millisecond or so; 0 = alone  */
    int32_t     alike;  /* every document has so many tokens; 0 = as above               */
} traffic;

typedef struct request {
    rr__task task; /* first */
    double   arrived;
    int32_t  packed, done;
    int      late; /* dropped for its deadline */
} request;

static int32_t draw_docs(const traffic *t) {
    if (t->giant_every && uniform() * t->giant_every < 1)
        return 10000;
    return (int32_t)(t->least * pow((t->most + 1.0) / t->least, uniform()));
}

static request *draw_request(int32_t n, int32_t alike) {
    request *r = calloc(1, sizeof *r);
    int32_t *cu = malloc(((size_t)n + 1) * sizeof *cu);

    cu[0] = 0;
    for (int32_t i = 0; i < n; i++) {
        double len = exp(log(180) - 0.18 + 0.6 * normal());

        cu[i + 1] = cu[i] + (alike ? alike : len < 12 ? 12 : len > 512 ? 512 : (int32_t)len);
    }
    r->task.cu = cu;
    r->task.n = n;
    return r;
}

static void request_free(request *r) {
    rr__task_free(&r->task);
    free((void *)r->task.cu);
    free(r);
}

/* ---- devices and policies ----------------------------------------------- */

typedef struct device {
    const char *name;
    double      a, b, c;
} device;

typedef struct policy {
    const char    *name;
    rr__queue_opts o;
    int            naive;    /* the device pads each batch to its longest sequence */
    int            deadline; /* clients say when an answer is of no use any more   */
} policy;

#define FULL 1e-9 /* waste: no limit of time on a batch */
static device main_device = {"gpu", 400, 0.9, 0.0005};

#define OUR_POLICY                                                                                 \
    { .waste = 0.05, .start_us = 100, .crowd = 16, .quiet = 2, .lead_us = 300 } /* as sched.c */

static const policy policies[] = {
    {.name = "window 10 ms, padded",
     .naive = 1,
     .o = {.max_seqs = 32, .wait_us = 10000, .waste = FULL, .order = RR__ORDER_FIFO}},
    {.name = "FIFO, padded",
     .naive = 1,
     .o = {.max_seqs = 32, .waste = FULL, .lead_us = INT32_MAX, .order = RR__ORDER_FIFO}},
    {.name = "FIFO, length groups",
     .o = {.padded = 1, .waste = FULL, .lead_us = INT32_MAX, .order = RR__ORDER_FIFO}},
    {.name = "FIFO, ragged", .o = {.waste = FULL, .lead_us = INT32_MAX, .order = RR__ORDER_FIFO}},
    {.name = "fair, ragged", .o = {.waste = FULL, .lead_us = INT32_MAX}},
    {.name = "ours", .o = OUR_POLICY},
    {.name = "ours, patience 10 ms",
     .o = {.waste = 0.05,
           .start_us = 100,
           .crowd = 16,
           .quiet = 2,
           .lead_us = 300,
           .wait_us = 10000}},
    {.name = "ours, with deadlines", .o = OUR_POLICY, .deadline = 1},
};
enum { N_POLICY = sizeof policies / sizeof policies[0], OURS = 5 };

/* Documents a second at best: batches without end, no padding. */
static double capacity(const device *d, int32_t alike) {
    double sum = 0;

    seed();
    for (int i = 0; i < 2000; i++) {
        request *r = draw_request(1, alike);
        double   len = r->task.cu[1];

        sum += d->b * len + d->c * len * len;
        request_free(r);
    }
    return 1e6 / (sum / 2000);
}

static double docs_a_request(const traffic *t) {
    double sum = 0;

    seed();
    for (int i = 0; i < 400000; i++)
        sum += draw_docs(t);
    return sum / 400000;
}

/* ---- one replica: a queue, a packer, a device --------------------------- */

typedef struct replica {
    const device *device;
    const policy *policy;
    rr__queue     queue;
    rr__cost      cost;
    rr__pack      running, next;
    int           has_running, has_next;
    int32_t       open;                                   /* requests not answered yet */
    double        run_end, predicted_end, started, event; /* us */
    double        busy;
    double        batches, tokens;
} replica;

typedef struct results {
    double *small, *giant; /* [n] latencies in us */
    size_t  n_small, n_giant, cap, good, offered, refused;
    double  warm; /* us; what came before does not count */
} results;

static void replica_init(replica *r, const device *d, const policy *p) {
    rr__queue_opts o = p->o;

    memset(r, 0, sizeof *r);
    r->device = d;
    r->policy = p;
    o.max_tokens = MAX_TOKENS;
    o.max_seqs = o.max_seqs ? o.max_seqs : MAX_SEQS;
    rr__cost_init(&r->cost);
    for (int i = 0; i < 6; i++) { /* as the scheduler probes at open */
        double n = (double[]){1, 1, 4, 1, 8, 16}[i],
               len = (double[]){32, 128, 64, 512, 128, 256}[i];

        rr__cost_probe(&r->cost, n * len, n * len * len,
                       d->a + d->b * n * len + d->c * n * len * len);
    }
    rr__queue_init(&r->queue, &o, &r->cost);
    r->running.part = malloc(MAX_SEQS * sizeof(rr__part));
    r->next.part = malloc(MAX_SEQS * sizeof(rr__part));
    r->event = INFINITY;
}

static void replica_free(replica *r) {
    rr__queue_free(&r->queue);
    free(r->running.part);
    free(r->next.part);
}

/* What the device computes: the batch as it is, or padded to its longest. */
static void shape(const replica *r, const rr__pack *p, double *tokens, double *sumsq) {
    *tokens = p->tokens;
    *sumsq = p->sumsq;
    if (r->policy->naive) {
        *tokens = (double)p->n_seq * p->max_len;
        *sumsq = *tokens * p->max_len;
    }
}

static void start_next(replica *r, double now) {
    rr__pack was = r->running;
    double   tokens, sumsq, us;

    r->running = r->next;
    r->next = was;
    r->has_next = 0;
    r->has_running = 1;
    shape(r, &r->running, &tokens, &sumsq);
    us = r->device->a + r->device->b * tokens + r->device->c * sumsq;
    r->started = now;
    r->run_end = now + us * (0.95 + 0.1 * uniform_of(DEVICE));
    r->predicted_end = now + rr__cost_batch(&r->cost, tokens, sumsq);
    r->busy += r->run_end - now;
    r->batches++;
    r->tokens += r->running.n_tok;
}

static void record(results *res, const request *q, double now) {
    double us = now - q->arrived;

    if (q->arrived < res->warm)
        return;
    if (q->task.n >= 10000) {
        res->giant[res->n_giant++] = us;
    } else {
        res->small[res->n_small++] = us;
        res->good += us <= SLO_US;
    }
}

static void complete(replica *r, double now, results *res) {
    double tokens, sumsq;

    shape(r, &r->running, &tokens, &sumsq);
    rr__cost_observe(&r->cost, tokens, sumsq, now - r->started);
    for (int32_t i = 0; i < r->running.n_part; i++) {
        request *q = (request *)r->running.part[i].task;

        q->done += r->running.part[i].n;
        if (q->done == q->task.n)
            record(res, q, now);
        if (q->done == (q->late ? q->packed : q->task.n)) {
            r->open--;
            request_free(q);
        }
    }
    r->has_running = 0;
    if (r->has_next)
        start_next(r, now);
}

/* Drop what cannot be in time any more. */
static void drop_late(replica *r, double now) {
    rr__task *t;

    while ((t = rr__queue_expired(&r->queue, (int64_t)now))) {
        request *q = (request *)t;

        q->late = 1;
        if (q->done == q->packed) {
            r->open--;
            request_free(q);
        }
    }
}

/* Let the packer do what it would do now, and say when it wants to be woken. */
static void step(replica *r, double now, results *res) {
    int64_t due = INT64_MAX;

    if (r->has_running && r->run_end <= now)
        complete(r, now, res);
    drop_late(r, now);
    while (!r->has_next) {
        due =
            rr__queue_due(&r->queue, (int64_t)now, r->has_running ? (int64_t)r->predicted_end : 0);
        if (due > (int64_t)now)
            break;
        if (!rr__queue_pack(&r->queue, !r->has_running, (int64_t)now, &r->next)) {
            drop_late(r, now); /* that was all */
            due = INT64_MAX;
            break;
        }
        for (int32_t i = 0; i < r->next.n_part; i++)
            ((request *)r->next.part[i].task)->packed += r->next.part[i].n;
        r->has_next = 1;
        due = INT64_MAX;
        if (!r->has_running)
            start_next(r, now + HAND_US);
    }
    r->event = r->has_running ? r->run_end : INFINITY;
    if (due != INT64_MAX && (double)due < r->event)
        r->event = (double)due > now ? (double)due : now + 1;
}

/* us until the batches before the queue are done. */
static double in_flight(const replica *r, double now) {
    double us = r->has_next ? r->next.us : 0;

    return r->has_running && r->predicted_end > now ? us + r->predicted_end - now : us;
}

static int offer(replica *r, request *q, double now, results *res) {
    const rr__queue *queue = &r->queue;
    int              ok;

    rr__task_init(&q->task, r->policy->o.padded);
    q->arrived = now;
    ok = queue->tokens + q->task.tokens <= QUEUE_MOST;
    if (ok && r->policy->deadline && q->task.n < 10000) {
        q->task.deadline_us = (int64_t)(now + SLO_US);
        ok = in_flight(r, now) + rr__queue_until_us(queue, queue->tokens, queue->sumsq,
                                                    (int64_t)queue->n, &q->task) <
             SLO_US;
    }
    if (!ok || rr__queue_add(&r->queue, &q->task, (int64_t)now, NULL) != RR_OK) {
        request_free(q);
        return 0;
    }
    r->open++;
    step(r, now, res);
    return 1;
}

/* ---- the run ------------------------------------------------------------ */

typedef enum balancer {
    RANDOM,
    ROUND_ROBIN,
    TWO_BY_TOKENS,
    TWO_BY_REQUESTS,
    LEAST,
    N_BALANCER
} balancer;
static const char *const balancer_names[] = {"random", "round robin", "two choices by tokens",
                                             "two choices by requests", "fewest requests"};

/* How loaded a replica looks: by tokens that wait or run, or by requests not answered yet. */
static double load_of(const replica *r, balancer how) {
    if (how == TWO_BY_REQUESTS || how == LEAST)
        return (double)r->open;
    return r->queue.tokens + (r->has_running ? r->running.tokens : 0) +
           (r->has_next ? r->next.tokens : 0);
}

static size_t choose(balancer how, const replica *r, size_t n, size_t *turn) {
    size_t a = (size_t)(uniform_of(BALANCER) * (double)n);
    size_t b = (size_t)(uniform_of(BALANCER) * (double)n);

    if (how == ROUND_ROBIN)
        return (*turn)++ % n;
    for (size_t i = 0; how == LEAST && i < n; i++)
        a = r[i].open < r[a].open ? i : a;
    return how != RANDOM && load_of(&r[b], how) < load_of(&r[a], how) ? b : a;
}

/* Times at which replicas want to be woken; stale entries are passed over. */
typedef struct timer {
    double time;
    size_t replica;
} timer;
static timer *timers;
static size_t n_timer, cap_timer;

static void timer_push(double time, size_t replica_index) {
    size_t i = n_timer++;

    if (n_timer > cap_timer) {
        cap_timer = cap_timer ? 2 * cap_timer : 1024;
        timers = realloc(timers, cap_timer * sizeof *timers);
        if (!timers)
            exit(1);
    }
    for (; i > 0 && time < timers[(i - 1) / 2].time; i = (i - 1) / 2)
        timers[i] = timers[(i - 1) / 2];
    timers[i] = (timer){time, replica_index};
}

static timer timer_pop(void) {
    timer  top = timers[0], last = timers[--n_timer];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < n_timer) {
        child += child + 1 < n_timer && timers[child + 1].time < timers[child].time;
        if (last.time <= timers[child].time)
            break;
        timers[i] = timers[child];
        i = child;
    }
    timers[i] = last;
    return top;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(const double *sorted, size_t n, double p) {
    return n ? sorted[(size_t)(p * (double)(n - 1) + 0.5)] : NAN;
}

typedef struct numbers {
    double p50, p99, p999, giant_p50, giant_max, goodput, refused, batch_tokens, busy;
} numbers;

/* n_request requests at `load` times what the replicas can do. */
static numbers simulate(const device *d, const policy *p, const traffic *t, double load,
                        size_t n_replica, balancer how, size_t n_request) {
    double   per_us = load * capacity(d, t->alike) * (double)n_replica / docs_a_request(t) / 1e6;
    replica *r = calloc(n_replica, sizeof *r);
    results  res = {0};
    double   now = 0, next_arrival, on_until = 0, tokens = 0, batches = 0, busy = 0;
    size_t   turn = 0, came = 0;
    numbers  out;

    seed();
    n_timer = 0;
    res.small = malloc(n_request * sizeof(double));
    res.giant = malloc(n_request * sizeof(double));
    res.warm = 0.1 * (double)n_request / per_us;
    for (size_t i = 0; i < n_replica; i++)
        replica_init(&r[i], d, p);
    next_arrival = exponential(1 / per_us);
    while (came < n_request || n_timer > 0) {
        size_t i;

        if (came < n_request && (n_timer == 0 || next_arrival <= timers[0].time)) {
            request *q = draw_request(draw_docs(t), t->alike);
            int      counts = next_arrival >= res.warm && q->task.n < 10000;

            now = next_arrival;
            came++;
            i = choose(how, r, n_replica, &turn);
            res.offered += (size_t)counts;
            if (!offer(&r[i], q, now, &res))
                res.refused += (size_t)counts;
            if (t->bunch && came % (size_t)t->bunch != 0)
                next_arrival += exponential(1000.0 / t->bunch);
            else
                next_arrival +=
                    exponential((t->bunch ? t->bunch : 1) / (t->bursty ? 3 * per_us : per_us));
            while (t->bursty && next_arrival > on_until) { /* the burst is over: skip a silence */
                double off = exponential(200e3);

                next_arrival += off;
                on_until = (on_until > now ? on_until : now) + off + exponential(100e3);
            }
        } else {
            timer e = timer_pop();

            i = e.replica;
            if (e.time != r[i].event)
                continue;
            now = e.time;
            step(&r[i], now, &res);
        }
        if (r[i].event < INFINITY)
            timer_push(r[i].event, i);
    }
    for (size_t i = 0; i < n_replica; i++) {
        tokens += r[i].tokens;
        batches += r[i].batches;
        busy += r[i].busy;
        replica_free(&r[i]);
    }
    qsort(res.small, res.n_small, sizeof(double), by_value);
    qsort(res.giant, res.n_giant, sizeof(double), by_value);
    out = (numbers){quantile(res.small, res.n_small, 0.5) / 1e3,
                    quantile(res.small, res.n_small, 0.99) / 1e3,
                    quantile(res.small, res.n_small, 0.999) / 1e3,
                    quantile(res.giant, res.n_giant, 0.5) / 1e3,
                    quantile(res.giant, res.n_giant, 1) / 1e3,
                    res.offered ? (double)res.good / (double)res.offered : NAN,
                    res.offered ? (double)res.refused / (double)res.offered : NAN,
                    tokens / batches,
                    busy / now / (double)n_replica};
    free(res.small);
    free(res.giant);
    free(r);
    return out;
}

static void print_numbers(const char *what, const char *device_name, const char *traffic_name,
                          const char *policy_name, double x, numbers n) {
    printf("%s,%s,%s,\"%s\",%g,%.3f,%.3f,%.3f,%.3f,%.3f,%.4f,%.4f,%.0f,%.4f\n", what, device_name,
           traffic_name, policy_name, x, n.p50, n.p99, n.p999, n.giant_p50, n.giant_max, n.goodput,
           n.refused, n.batch_tokens, n.busy);
    fflush(stdout);
}

/* ---- experiments -------------------------------------------------------- */

static const traffic mixed = {.name = "mixed", .least = 1, .most = 100, .giant_every = 2000};
static const traffic bursty = {
    .name = "bursty", .least = 1, .most = 100, .giant_every = 2000, .bursty = 1};
static const traffic equal = {.name = "equal", .least = 20, .most = 20};
static const traffic small = {.name = "small", .least = 2, .most = 2};
static const traffic bunches = {.name = "bunches", .least = 1, .most = 1, .bunch = 16};

static void run_policies(void) {
    static const double loads[] = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.1};
    const traffic      *kinds[] = {&mixed, &bursty, &equal, &small};

    for (size_t k = 0; k < 4; k++)
        for (size_t p = 0; p < N_POLICY; p++)
            for (size_t i = 0; i < sizeof loads / sizeof *loads; i++)
                print_numbers(
                    "policies", main_device.name, kinds[k]->name, policies[p].name, loads[i],
                    simulate(&main_device, &policies[p], kinds[k], loads[i], 1, RANDOM, 20000));
}

/* One knob of our policy at a time: 0 waste, 1 crowd, 2 lead, 3 wait, 4 quiet. */
static void run_knob(int knob, const char *name, const double *values, size_t n, const device *d,
                     const traffic *t) {
    static const double load[] = {0.3, 0.6, 0.8, 0.95};

    for (size_t l = 0; l < 4; l++)
        for (size_t i = 0; i < n; i++) {
            policy p = policies[OURS];
            char   text[32];

            if (knob == 0)
                p.o.waste = values[i];
            else if (knob == 1)
                p.o.crowd = values[i];
            else if (knob == 2)
                p.o.lead_us = (int64_t)values[i];
            else if (knob == 3)
                p.o.wait_us = (int64_t)values[i];
            else
                p.o.quiet = values[i];
            snprintf(text, sizeof text, "load %g", load[l]);
            print_numbers(name, d->name, t->name, text, values[i],
                          simulate(d, &p, t, load[l], 1, RANDOM, 30000));
        }
}

static void run_knobs(void) {
    static const double waste[] = {1e-9, 0.01, 0.02, 0.05, 0.1, 0.2};
    static const double crowd[] = {0, 2, 4, 8, 16, 32, 64};
    static const double lead[] = {0, 100, 300, 1000, 3000, 1e9};
    static const double wait[] = {0, 500, 1000, 2000, 5000, 10000};
    static const double quiet[] = {0, 0.5, 1, 2, 4};
    static const device slow_start = {"slow start", 4000, 0.9, 0.0005};

    run_knob(0, "waste", waste, 6, &main_device, &mixed);
    run_knob(1, "crowd", crowd, 7, &main_device, &mixed);
    run_knob(2, "lead", lead, 6, &main_device, &mixed);
    run_knob(4, "quiet", quiet, 5, &main_device, &mixed);
    run_knob(3, "wait", wait, 6, &main_device, &mixed);
    run_knob(3, "wait", wait, 6, &main_device, &bunches);
    run_knob(3, "wait", wait, 6, &slow_start, &bunches);
}

/* A 10,000-document request comes to an idle device; 300 ms later one of 10 documents. */
static void run_giant(void) {
    for (size_t p = 0; p < N_POLICY; p++) {
        results      res = {0};
        replica      r;
        double       latency[2];
        const double later = 300e3;

        seed();
        res.small = &latency[0];
        res.giant = &latency[1];
        replica_init(&r, &main_device, &policies[p]);
        offer(&r, draw_request(10000, 0), 0, &res);
        while (r.event < later)
            step(&r, r.event, &res);
        offer(&r, draw_request(10, 0), later, &res);
        while (r.event < INFINITY)
            step(&r, r.event, &res);
        printf("giant,\"%s\",%.3f,%.3f\n", policies[p].name, latency[0] / 1e3, latency[1] / 1e3);
        replica_free(&r);
    }
}

static void run_fleet(void) {
    static const size_t sizes[] = {1, 3, 10, 30, 100, 300, 1000};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int how = 0; how < LEAST; how++)
            print_numbers("fleet", main_device.name, mixed.name, balancer_names[how],
                          (double)sizes[i],
                          simulate(&main_device, &policies[OURS], &mixed, 0.8, sizes[i],
                                   (balancer)how, sizes[i] < 20 ? 60000 : 3000 * sizes[i]));
}

/* Requests exactly alike, from many starts long to a small part of one; then several devices. */
static void run_equal(void) {
    static const double  loads[] = {0.4, 0.5, 0.6, 0.7, 0.8, 0.9};
    static const traffic sizes[] = {{.name = "100 x 180", .least = 100, .most = 100, .alike = 180},
                                    {.name = "20 x 180", .least = 20, .most = 20, .alike = 180},
                                    {.name = "2 x 180", .least = 2, .most = 2, .alike = 180},
                                    {.name = "1 x 32", .least = 1, .most = 1, .alike = 32}};
    static const size_t  fleet[] = {2, 4, 8};
    const policy        *shown[] = {&policies[OURS], &policies[OURS - 1], &policies[OURS - 2]};

    for (size_t l = 0; l < sizeof loads / sizeof *loads; l++) {
        for (size_t k = 0; k < 4; k++)
            for (size_t p = 0; p < 3; p++)
                print_numbers(
                    "equal", main_device.name, sizes[k].name, shown[p]->name, loads[l],
                    simulate(&main_device, shown[p], &sizes[k], loads[l], 1, RANDOM, 100000));
        for (size_t i = 0; i < 3; i++) {
            char text[32];

            snprintf(text, sizeof text, "ours, %zu devices", fleet[i]);
            print_numbers("equal", main_device.name, sizes[0].name, text, loads[l],
                          simulate(&main_device, &policies[OURS], &sizes[0], loads[l], fleet[i],
                                   LEAST, 100000));
        }
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const char *columns = "experiment,device,traffic,policy,x,p50_ms,p99_ms,p999_ms,giant_p50_ms,"
                          "giant_max_ms,goodput,refused,batch_tokens,busy";

    if (argc > 5)
        main_device =
            (device){argv[2], strtod(argv[3], NULL), strtod(argv[4], NULL), strtod(argv[5], NULL)};
    if (strcmp(what, "giant") == 0) {
        puts("experiment,policy,small_ms,giant_ms");
        run_giant();
        return 0;
    }
    puts(columns);
    if (strcmp(what, "policies") == 0)
        run_policies();
    else if (strcmp(what, "knobs") == 0)
        run_knobs();
    else if (strcmp(what, "fleet") == 0)
        run_fleet();
    else if (strcmp(what, "equal") == 0)
        run_equal();
    else
        return fprintf(stderr, "usage: sched policies|knobs|giant|fleet|equal [NAME A B C]\n"), 2;
    free(timers);
    return 0;
}
