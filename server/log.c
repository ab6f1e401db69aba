/* log.c - one JSON line a request, written by a thread of its own.
 *
 * Lines are formatted where the request ends, into a buffer under a lock; the thread swaps the
 * buffer for an empty one and writes it. A disk that stalls costs lines, never latency: beyond
 * FULL bytes they are dropped and counted. */
#include "server/request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FULL = 4 << 20 };

struct rr__log {
    int              fd, owned;
    pthread_mutex_t  lock;
    pthread_cond_t   more;
    rr__json_out     fill, spill;
    int              closing;
    _Atomic uint64_t dropped;
    pthread_t        thread;
};

static void write_all(int fd, const char *p, size_t n) {
    while (n > 0) {
        ssize_t w = write(fd, p, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return;
        p += w;
        n -= (size_t)w;
    }
}

static void *log_main(void *arg) {
    struct rr__log *l = arg;

    pthread_mutex_lock(&l->lock);
    for (;;) {
        rr__json_out swap;

        if (l->fill.len == 0) {
            if (l->closing)
                break;
            pthread_cond_wait(&l->more, &l->lock);
            continue;
        }
        swap = l->fill;
        l->fill = l->spill;
        l->spill = swap;
        pthread_mutex_unlock(&l->lock);
        write_all(l->fd, swap.ptr, swap.len);
        pthread_mutex_lock(&l->lock);
        rr__out_reset(&l->spill);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

rr_status rr__log_open(const char *path, struct rr__log **out, rr_error *err) {
    struct rr__log *l;
    int             rc;

    if (path && strcmp(path, "off") == 0)
        return RR_OK;
    l = calloc(1, sizeof *l);
    if (!l)
        return rr__fail(err, RR_E_NOMEM, "log: out of memory");
    l->fd = STDERR_FILENO;
    if (path) {
        l->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
        l->owned = 1;
    }
    if (l->fd < 0) {
        free(l);
        return rr__fail(err, RR_E_IO, "open %s: %s", path, strerror(errno));
    }
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->more, NULL);
    rc = pthread_create(&l->thread, NULL, log_main, l);
    if (rc != 0) {
        if (l->owned)
            close(l->fd);
        free(l);
        return rr__fail(err, RR_E_NOMEM, "log thread: %s", strerror(rc));
    }
    *out = l;
    return RR_OK;
}

void rr__log_flush(struct rr__log *l) {
    for (int i = 0, idle = !l; !idle && i < 200; i++) {
        pthread_mutex_lock(&l->lock);
        idle = l->fill.len == 0 && l->spill.len == 0;
        pthread_mutex_unlock(&l->lock);
        if (!idle)
            nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
}

void rr__log_close(struct rr__log *l) {
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->closing = 1;
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    if (l->owned)
        close(l->fd);
    rr__out_free(&l->fill);
    rr__out_free(&l->spill);
    pthread_cond_destroy(&l->more);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

uint64_t rr__log_dropped(const struct rr__log *l) {
    return l ? atomic_load(&l->dropped) : 0;
}

static void begin(rr__json_out *o, const char *level) {
    struct timespec ts;
    struct tm       tm;
    char            text[64], day[32];

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text, sizeof text, "%s.%06ldZ", day, ts.tv_nsec / 1000);
    o->comma = 0;
    rr__out_object(o);
    rr__out_key(o, "time");
    rr__out_cstr(o, text);
    rr__out_key(o, "level");
    rr__out_cstr(o, level);
}

static void end(struct rr__log *l) {
    rr__out_end_object(&l->fill);
    rr__out_raw(&l->fill, "\n", 1);
    if (l->fill.failed)
        rr__out_reset(&l->fill);
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
}

static void pair_str(rr__json_out *o, const char *key, const char *value) {
    if (!value || !*value)
        return;
    rr__out_key(o, key);
    rr__out_cstr(o, value);
}

static void pair_i64(rr__json_out *o, const char *key, int64_t value) {
    rr__out_key(o, key);
    rr__out_i64(o, value);
}

void rr__log_request(struct rr__log *l, const rr__request *r) {
    rr__json_out *o;

    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    if (l->fill.len > FULL) {
        atomic_fetch_add(&l->dropped, 1);
        pthread_mutex_unlock(&l->lock);
        return;
    }
    o = &l->fill;
    begin(o, r->http >= 500 ? "error" : "info");
    pair_str(o, "id", r->id);
    pair_str(o, "trace_id", r->trace);
    pair_str(o, "span_id", r->span);
    pair_str(o, "parent_id", r->parent);
    pair_str(o, "method", r->method);
    pair_str(o, "path", r->uri);
    pair_str(o, "dialect", r->dialect ? r->dialect->name : NULL);
    pair_i64(o, "status", r->http);
    if (r->left)
        pair_i64(o, "client_left", 1);
    pair_str(o, "error", r->text);
    pair_i64(o, "bytes", (int64_t)r->body_len);
    if (r->job) {
        pair_i64(o, "docs", (int64_t)r->n);
        pair_i64(o, "tokens", (int64_t)r->n_tokens);
        pair_i64(o, "truncated", (int64_t)r->n_truncated);
        pair_i64(o, "tokenize_us", r->timing.tokenize_us);
        pair_i64(o, "queue_us", r->timing.queue_us);
        pair_i64(o, "forward_us", r->timing.forward_us);
    }
    pair_i64(o, "total_us", r->total_us);
    end(l);
}

void rr__log_event(struct rr__log *l, const char *level, const char *text) {
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    begin(&l->fill, level);
    pair_str(&l->fill, "event", text);
    end(l);
}
