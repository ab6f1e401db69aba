/* metrics.c - /metrics in Prometheus' text format: the engine's counters and HTTP's own.
 *
 * Names follow the conventions: unit last, _total for counters, seconds and bytes. What a request
 * adds is a handful of atomic increments at its end. */
#include "server/info.h"
#include "server/request.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ROUTES = 64, MAX_CODES = 24, BUCKETS = 20 };

static const int codes[] = {200, 204, 400, 401, 404, 405, 413, 415, 422,
                            424, 429, 499, 500, 501, 503, 504, 0};
enum { N_CODES = sizeof codes / sizeof codes[0] }; /* the last counts all others */

typedef _Atomic uint64_t counter;

struct rr__metrics {
    counter requests[MAX_ROUTES + 1][N_CODES]; /* the last row: unknown paths */
    counter bucket[BUCKETS + 1], sum_us;       /* bucket i: up to 0.0005 * 2^i seconds */
    counter problem[RR__P_COUNT];
    counter bytes_in, bytes_out, left;
    double  start_s;
};

rr_status rr__metrics_open(struct rr__metrics **out, rr_error *err) {
    struct timespec ts;

    *out = calloc(1, sizeof **out);
    if (!*out)
        return rr__fail(err, RR_E_NOMEM, "metrics: out of memory");
    clock_gettime(CLOCK_REALTIME, &ts);
    (*out)->start_s = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
    return RR_OK;
}

void rr__metrics_close(struct rr__metrics *m) {
    free(m);
}

static void count(counter *c, uint64_t n) {
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static uint64_t read_count(counter *c) {
    return atomic_load_explicit(c, memory_order_relaxed);
}

void rr__metrics_request(struct rr__metrics *m, const rr__request *r) {
    int row = r->route && rr__n_routes <= MAX_ROUTES ? (int)(r->route - rr__routes) : MAX_ROUTES;
    int code = 0, b = 0;

    while (code < N_CODES - 1 && codes[code] != r->http)
        code++;
    while (b < BUCKETS && r->total_us > (int64_t)500 << b)
        b++;
    count(&m->requests[row][code], 1);
    if (r->route && r->route->op != RR__OP_NOW) {
        count(&m->bucket[b], 1);
        count(&m->sum_us, (uint64_t)r->total_us);
    }
    count(&m->problem[r->problem], 1);
    count(&m->bytes_in, r->body_len);
    count(&m->bytes_out, r->fixed ? r->fixed_len : r->out.len);
    count(&m->left, (uint64_t)r->left);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void say(rr__json_out *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(rr__json_out *o, const char *fmt, ...) {
    char    line[512];
    va_list args;
    int     n;

    va_start(args, fmt);
    n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n > 0)
        rr__out_raw(o, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static void head(rr__json_out *o, const char *name, const char *type, const char *help) {
    say(o, "# HELP rerank_%s %s\n# TYPE rerank_%s %s\n", name, help, name, type);
}

static void one(rr__json_out *o, const char *name, const char *type, const char *help, double v) {
    head(o, name, type, help);
    say(o, "rerank_%s %.17g\n", name, v);
}

/* A label value with its quotes, escaped as the format demands. */
static void label(rr__json_out *o, const char *name, const char *value) {
    say(o, "%s=\"", name);
    for (const char *p = value ? value : ""; *p; p++)
        if (*p == '"' || *p == '\\')
            say(o, "\\%c", *p);
        else if (*p == '\n')
            say(o, "\\n");
        else
            rr__out_raw(o, p, 1);
    say(o, "\"");
}

/* Histogram of the engine: bucket i holds values up to base * 2^i, the last the rest. */
static void hist(rr__json_out *o, const char *name, const char *help, const rr_hist *h, double base,
                 double scale) {
    uint64_t sum = 0;

    head(o, name, "histogram", help);
    for (int i = 0; i < RR_HIST_BUCKETS; i++) {
        sum += h->bucket[i];
        if (i < RR_HIST_BUCKETS - 1)
            say(o, "rerank_%s_bucket{le=\"%.9g\"} %llu\n", name, ldexp(base, i) * scale,
                (unsigned long long)sum);
    }
    say(o, "rerank_%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)sum);
    say(o, "rerank_%s_sum %.17g\n", name, (double)h->sum * scale);
    say(o, "rerank_%s_count %llu\n", name, (unsigned long long)sum);
}

static void write_requests(rr__json_out *o, struct rr__metrics *m) {
    head(o, "http_requests_total", "counter", "Requests by path and status.");
    for (int i = 0; i <= MAX_ROUTES; i++)
        for (int c = 0; c < N_CODES; c++) {
            uint64_t n = read_count(&m->requests[i][c]);
            char     other[8] = "other";

            if (n == 0)
                continue;
            if (codes[c])
                snprintf(other, sizeof other, "%d", codes[c]);
            say(o, "rerank_http_requests_total{");
            label(o, "method", i < rr__n_routes ? rr__routes[i].method : "other");
            say(o, ",");
            label(o, "path", i < rr__n_routes ? rr__routes[i].path : "other");
            say(o, ",");
            label(o, "code", other);
            say(o, "} %llu\n", (unsigned long long)n);
        }
}

static void write_duration(rr__json_out *o, struct rr__metrics *m) {
    static const char name[] = "rerank_http_request_duration_seconds";
    uint64_t          sum = 0;

    head(o, name + 7, "histogram", "First byte of a POST to its answer being ready.");
    for (int b = 0; b <= BUCKETS; b++) {
        sum += read_count(&m->bucket[b]);
        if (b < BUCKETS)
            say(o, "%s_bucket{le=\"%.9g\"} %llu\n", name, ldexp(0.0005, b),
                (unsigned long long)sum);
        else
            say(o, "%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)sum);
    }
    say(o, "%s_sum %.17g\n%s_count %llu\n", name, (double)read_count(&m->sum_us) / 1e6, name,
        (unsigned long long)sum);
}

static void write_problems(rr__json_out *o, struct rr__metrics *m) {
#define NAME(name, http, tei, openai) #name,
    static const char *const names[] = {RR__PROBLEM_MAP(NAME)};
#undef NAME

    head(o, "http_problems_total", "counter", "Requests that were not served, by reason.");
    for (int p = RR__P_NONE + 1; p < RR__P_COUNT; p++) {
        char low[24];
        int  i = 0;

        for (; names[p][i] && i < 23; i++)
            low[i] = (char)(names[p][i] == '_' ? '_' : names[p][i] + 'a' - 'A');
        low[i] = '\0';
        say(o, "rerank_http_problems_total{reason=\"%s\"} %llu\n", low,
            (unsigned long long)read_count(&m->problem[p]));
    }
}

static double resident_bytes(void) {
    FILE         *f = fopen("/proc/self/statm", "r");
    unsigned long size = 0, resident = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void write_engine(rr__json_out *o, const rr_stats *s) {
    const struct {
        const char *name, *help;
        uint64_t    v;
    } counters[] = {
        {"jobs_total", "Requests admitted to the queue.", s->jobs},
        {"documents_total", "Documents admitted.", s->docs},
        {"tokens_total", "Tokens admitted.", s->tokens},
        {"batches_total", "Batches run.", s->batches},
        {"truncated_documents_total", "Documents that lost tokens.", s->truncated_docs},
        {"expired_total", "Requests dropped because their deadline passed.", s->expired},
        {"canceled_total", "Requests dropped because their client left.", s->canceled},
        {"failed_total", "Requests whose batch failed.", s->failed},
        {"cache_hits_total", "Documents whose tokens came from the cache.", s->cache_hits},
        {"cache_misses_total", "Documents that were tokenized.", s->cache_misses},
    };

    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++)
        one(o, counters[i].name, "counter", counters[i].help, (double)counters[i].v);
    head(o, "rejected_total", "counter", "Requests the scheduler refused, by reason.");
    say(o, "rerank_rejected_total{reason=\"busy\"} %llu\n", (unsigned long long)s->rejected_busy);
    say(o, "rerank_rejected_total{reason=\"deadline\"} %llu\n",
        (unsigned long long)s->rejected_deadline);
    hist(o, "tokenize_seconds", "Tokenizing of a request.", &s->tokenize_us, 16, 1e-6);
    hist(o, "queue_seconds", "Waiting of a request in the queue.", &s->queue_us, 16, 1e-6);
    hist(o, "forward_seconds", "Device time of a request's batches.", &s->forward_us, 16, 1e-6);
    hist(o, "total_seconds", "Submission of a request to its last score.", &s->total_us, 16, 1e-6);
    hist(o, "batch_tokens", "Tokens in a batch.", &s->batch_tokens, 1, 1);
    one(o, "queue_tokens", "gauge", "Tokens waiting.", (double)s->queued_tokens);
    one(o, "queue_documents", "gauge", "Documents waiting.", (double)s->queued_docs);
    head(o, "instances", "gauge", "Engine instances by state.");
    say(o, "rerank_instances{state=\"ok\"} %d\nrerank_instances{state=\"fenced\"} %d\n",
        s->instances_ok, s->instances_fenced);
}

void rr__get_metrics(rr__request *r) {
    rr__server         *s = r->server;
    struct rr__metrics *m = s->metrics;
    rr__json_out       *o = &r->out;
    rr_stats            stats;
    char                why[256];
    int                 ok = rr__health_ok(s->health, why, sizeof why);

    r->type = "text/plain; version=0.0.4; charset=utf-8";
    head(o, "build_info", "gauge", "What is running; always 1.");
    say(o, "rerank_build_info{");
    label(o, "version", rr_version());
    say(o, ",");
    label(o, "model", s->model_name);
    say(o, ",");
    label(o, "backend", s->engine_info.backend);
    say(o, ",");
    label(o, "precision", s->engine_info.precision);
    say(o, ",");
    label(o, "device", s->engine_info.device);
    say(o, "} 1\n");
    one(o, "healthy", "gauge", "1 if the last canary came back well and in time.", ok);
    one(o, "ready", "gauge", "1 if /ready says so.", ok && !atomic_load(&s->draining));
    one(o, "backlog_seconds", "gauge", "Estimated time until the queue is empty.",
        (double)rr_engine_backlog_us(s->engine) / 1e6);
    rr_engine_stats(s->engine, &stats);
    write_engine(o, &stats);
    write_requests(o, m);
    write_duration(o, m);
    write_problems(o, m);
    one(o, "http_requests_in_flight", "gauge", "Requests between first and last byte.",
        atomic_load(&s->n_requests));
    one(o, "http_connections", "gauge", "Open connections.", rr__watch_connections(s->watch));
    one(o, "http_body_bytes_held", "gauge", "Memory held by request bodies.",
        (double)atomic_load(&s->buffered));
    one(o, "http_request_bytes_total", "counter", "Bytes of request bodies.",
        (double)read_count(&m->bytes_in));
    one(o, "http_response_bytes_total", "counter", "Bytes of answers.",
        (double)read_count(&m->bytes_out));
    one(o, "http_clients_left_total", "counter", "Clients that left before the end of the answer.",
        (double)read_count(&m->left));
    one(o, "log_lines_dropped_total", "counter", "Log lines lost to a slow disk.",
        (double)rr__log_dropped(s->log));
    say(o,
        "# HELP process_start_time_seconds Start time since the epoch.\n"
        "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %.3f\n"
        "# HELP process_resident_memory_bytes Resident memory.\n"
        "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %.0f\n",
        m->start_s, resident_bytes());
}
