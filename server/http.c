/* http.c - libmicrohttpd's callbacks: from the first byte of a request to the last of its answer.
 *
 *     on_uri        a request line was read
 *     on_request    headers, then the body in pieces, then (once more) when the answer is ready
 *     on_completed  log, count, free
 *
 * A problem found in the headers of a request with a small body is answered after that body was
 * read and dropped, because a client that is still sending would not see the answer. */
#include "server/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

enum { SWALLOW = 1 << 20, FIRST_BODY = 16 * 1024 };

typedef struct MHD_Connection MHD_conn;

static const char *header(MHD_conn *c, const char *name) {
    return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static void hex_id(char *out, size_t digits) {
    unsigned char b[16] = {0};

    if (getrandom(b, digits / 2, 0) < 0)
        b[0] = 1; /* only before the kernel's pool is ready; an all-zero id is invalid */
    for (size_t i = 0; i < digits / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", b[i]);
}

/* ---- headers --------------------------------------------------------------------------------- */

static int is_hex(const char *p, size_t n) {
    int zero = 1;

    for (size_t i = 0; i < n; i++) {
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
            return 0;
        zero &= p[i] == '0';
    }
    return !zero;
}

/* W3C trace context: version-trace-parent-flags. What is malformed is ignored, as the standard
 * demands. */
static void take_trace(rr__request *r) {
    const char *tp = header(r->mhd, "traceparent");

    if (tp && strlen(tp) >= 55 && tp[2] == '-' && tp[35] == '-' && tp[52] == '-' &&
        strncmp(tp, "ff", 2) != 0 && is_hex(tp + 3, 32) && is_hex(tp + 36, 16)) {
        memcpy(r->trace, tp + 3, 32);
        memcpy(r->parent, tp + 36, 16);
        hex_id(r->span, 16);
    }
}

static void take_id(rr__request *r) {
    static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    const char       *id = header(r->mhd, "X-Request-Id");

    if (id && *id && strlen(id) < sizeof r->id && strspn(id, ok) == strlen(id))
        memcpy(r->id, id, strlen(id) + 1);
    else
        hex_id(r->id, 24);
}

/* A whole number of 1..18 digits; -1 if the header is absent, -2 if it is something else. */
static int64_t number(const char *text) {
    int64_t v = 0;
    size_t  n = text ? strlen(text) : 0;

    if (!text)
        return -1;
    if (n < 1 || n > 18 || strspn(text, "0123456789") != n)
        return -2;
    for (size_t i = 0; i < n; i++)
        v = v * 10 + (text[i] - '0');
    return v;
}

static enum MHD_Result count_framing(void *n, enum MHD_ValueKind kind, const char *key,
                                     const char *value) {
    *(int *)n += strcasecmp(key, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0 ||
                 strcasecmp(key, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0;
    return MHD_YES;
}

/* Two headers that say how long the body is: a proxy before us may have believed the other one. */
static int is_ambiguous(rr__request *r) {
    int n = 0;

    MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, count_framing, &n);
    return n > 1;
}

static void take_body_size(rr__request *r) {
    rr__server *s = r->server;
    int64_t     len = number(header(r->mhd, MHD_HTTP_HEADER_CONTENT_LENGTH));
    const char *enc = header(r->mhd, MHD_HTTP_HEADER_CONTENT_ENCODING);

    r->gzip = enc && (strcasecmp(enc, "gzip") == 0 || strcasecmp(enc, "x-gzip") == 0);
    if (enc && !r->gzip && strcasecmp(enc, "identity") != 0)
        rr__problem_set(r, RR__P_ENCODING, "Content-Encoding %.40s is not supported", enc);
    else if (len > s->o.max_body)
        rr__problem_set(r, RR__P_TOO_LARGE, "the body has %lld bytes, the limit is %lld",
                        (long long)len, (long long)s->o.max_body);
    else if (len > 0 && atomic_load(&s->buffered) + len > s->o.max_buffered)
        rr__problem_set(r, RR__P_BUSY, "too many bytes of requests are being read");
}

/* Everything that can be said about a request before its body. */
static void take_headers(rr__request *r) {
    rr__server *s = r->server;
    const char *path = r->uri;
    rr__problem p = RR__P_NONE;

    take_trace(r);
    take_id(r);
    r->route = rr__route_find(r->method, path, r->segment, &p);
    if (p == RR__P_METHOD && strcmp(r->method, "OPTIONS") == 0) {
        r->http = 204; /* a browser asks before it calls; add_headers says what is allowed */
        r->dialect = &rr__any;
        r->drop_body = 1;
        return;
    }
    r->dialect = r->route ? r->route->dialect : &rr__any;
    r->header_len = number(header(r->mhd, "Inference-Header-Content-Length"));
    r->deadline_ms = number(header(r->mhd, "X-Request-Deadline-Ms"));
    r->ambiguous = is_ambiguous(r);
    if (r->ambiguous)
        rr__problem_set(r, RR__P_MALFORMED, "more than one Content-Length or Transfer-Encoding");
    else if (p == RR__P_NOT_FOUND)
        rr__problem_set(r, p, "no such path: %.100s", path);
    else if (p == RR__P_METHOD)
        rr__problem_set(r, p, "%.20s is not supported here", r->method);
    else if (!r->route->open && s->keys &&
             !rr__keys_allow(s->keys, header(r->mhd, MHD_HTTP_HEADER_AUTHORIZATION),
                             header(r->mhd, "X-Api-Key")))
        rr__problem_set(r, RR__P_KEY, "a valid API key is needed: Authorization: Bearer KEY");
    else if (r->header_len == -2 || r->deadline_ms == -2)
        rr__problem_set(r, RR__P_FIELD, "%s: expected a whole number",
                        r->header_len == -2 ? "Inference-Header-Content-Length"
                                            : "X-Request-Deadline-Ms");
    else
        take_body_size(r);
    r->deadline_ms = r->deadline_ms > 0 ? r->deadline_ms : 0;
    r->drop_body = r->problem != RR__P_NONE || r->route->op == RR__OP_NOW;
}

/* ---- body ------------------------------------------------------------------------------------ */

static void drop(rr__request *r) {
    atomic_fetch_sub(&r->server->buffered, (int64_t)r->body_cap);
    free(r->body);
    r->body = NULL;
    r->body_len = r->body_cap = 0;
    r->drop_body = 1;
}

static void keep(rr__request *r, const char *data, size_t size) {
    rr__server *s = r->server;

    if (r->body_cap - r->body_len < size) {
        int64_t declared = number(header(r->mhd, MHD_HTTP_HEADER_CONTENT_LENGTH));
        size_t  cap = declared > 0 ? (size_t)declared : r->body_cap ? r->body_cap * 2 : FIRST_BODY;
        char   *more;

        while (cap - r->body_len < size)
            cap *= 2;
        more = realloc(r->body, cap);
        if (!more) {
            rr__problem_set(r, RR__P_UNAVAILABLE, "out of memory");
            drop(r);
            return;
        }
        atomic_fetch_add(&s->buffered, (int64_t)(cap - r->body_cap));
        r->body = more;
        r->body_cap = cap;
    }
    memcpy(r->body + r->body_len, data, size);
    r->body_len += size;
}

static void take_body(rr__request *r, const char *data, size_t size) {
    rr__server *s = r->server;

    if (r->drop_body)
        return;
    if ((int64_t)(r->body_len + size) > s->o.max_body) { /* only a chunked body gets here */
        rr__problem_set(r, RR__P_TOO_LARGE, "the body exceeds the limit of %lld bytes",
                        (long long)s->o.max_body);
        drop(r);
    } else if (atomic_load(&s->buffered) > s->o.max_buffered) {
        rr__problem_set(r, RR__P_BUSY, "too many bytes of requests are being read");
        drop(r);
    } else {
        keep(r, data, size);
    }
}

/* ---- answer ---------------------------------------------------------------------------------- */

static void add(struct MHD_Response *resp, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void add(struct MHD_Response *resp, const char *name, const char *fmt, ...) {
    char    value[200];
    va_list args;

    va_start(args, fmt);
    vsnprintf(value, sizeof value, fmt, args);
    va_end(args);
    MHD_add_response_header(resp, name, value);
}

/* Timings as TEI tells them (whole milliseconds) and as browsers show them. */
static void add_timings(rr__request *r, struct MHD_Response *resp) {
    const rr_timing *t = &r->timing;
    int64_t          total = rr_now_us() - r->start_us;

    add(resp, "x-compute-type", "%s",
        strcmp(r->server->engine_info.backend, "cuda") == 0 ? "gpu+optimized" : "cpu");
    add(resp, "x-compute-time", "%lld", (long long)(t->total_us / 1000));
    add(resp, "x-compute-characters", "%llu", (unsigned long long)r->n_chars);
    add(resp, "x-compute-tokens", "%llu", (unsigned long long)r->n_tokens);
    add(resp, "x-total-time", "%lld", (long long)(total / 1000));
    add(resp, "x-tokenization-time", "%lld", (long long)(t->tokenize_us / 1000));
    add(resp, "x-queue-time", "%lld", (long long)(t->queue_us / 1000));
    add(resp, "x-inference-time", "%lld", (long long)(t->forward_us / 1000));
    add(resp, "server-timing",
        "tokenize;dur=%.3f, queue;dur=%.3f, forward;dur=%.3f, total;dur=%.3f",
        (double)t->tokenize_us / 1e3, (double)t->queue_us / 1e3, (double)t->forward_us / 1e3,
        (double)total / 1e3);
    if (r->n_truncated)
        add(resp, "x-truncated-documents", "%zu", r->n_truncated);
}

static void add_headers(rr__request *r, struct MHD_Response *resp) {
    const char *cors = r->server->o.cors_origin;

    if (r->http != 204)
        add(resp, MHD_HTTP_HEADER_CONTENT_TYPE, "%s", r->type ? r->type : "application/json");
    add(resp, "x-request-id", "%s", r->id);
    if (r->trace[0])
        add(resp, "traceresponse", "00-%s-%s-01", r->trace, r->span);
    if (cors) {
        add(resp, "access-control-allow-origin", "%s", cors);
        add(resp, "access-control-allow-headers",
            "authorization, content-type, x-api-key, x-request-id, x-request-deadline-ms, "
            "traceparent");
        add(resp, "access-control-allow-methods", "GET, POST, OPTIONS");
        add(resp, "access-control-expose-headers",
            "x-request-id, server-timing, retry-after, "
            "x-truncated-documents");
    }
    if (r->job && r->problem == RR__P_NONE)
        add_timings(r, resp);
    if (r->extra_header[0])
        MHD_add_response_header(resp, "Inference-Header-Content-Length", r->extra_header);
    if (r->http == 429 || r->http == 503) {
        int64_t s = (rr_engine_backlog_us(r->server->engine) + 999999) / 1000000;

        add(resp, MHD_HTTP_HEADER_RETRY_AFTER, "%lld", (long long)(s < 1 ? 1 : s > 120 ? 120 : s));
    }
    if (r->problem == RR__P_KEY)
        add(resp, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (r->http == 405 || r->http == 204)
        add(resp, MHD_HTTP_HEADER_ALLOW, "%s", rr__route_allow(r->uri));
    if (r->ambiguous || atomic_load(&r->server->draining))
        add(resp, MHD_HTTP_HEADER_CONNECTION, "close");
}

static enum MHD_Result answer(rr__request *r) {
    static char          no_memory[] = "{\"error\":\"out of memory\"}";
    struct MHD_Response *resp;
    enum MHD_Result      rc;

    r->stage = RR__ANSWERED;
    if (!r->http)
        r->http = 200;
    if (r->problem == RR__P_NONE && r->job && !r->answer_ready)
        r->dialect->write(r);
    if (r->problem != RR__P_NONE) {
        rr__out_reset(&r->out);
        r->type = NULL;
        rr__write_problem(r);
    }
    if (r->out.failed) {
        r->http = 503;
        r->type = NULL;
        resp =
            MHD_create_response_from_buffer(strlen(no_memory), no_memory, MHD_RESPMEM_PERSISTENT);
    } else if (r->fixed) {
        resp = MHD_create_response_from_buffer(r->fixed_len, (void *)(uintptr_t)r->fixed,
                                               MHD_RESPMEM_PERSISTENT);
    } else {
        resp =
            MHD_create_response_from_buffer(r->out.len, r->out.len ? r->out.ptr : no_memory,
                                            MHD_RESPMEM_PERSISTENT); /* lives until on_completed */
    }
    if (!resp)
        return MHD_NO;
    add_headers(r, resp);
    rr__watch_phase(r->server->watch, r->conn, RR__WRITE);
    r->total_us = rr_now_us() - r->start_us;
    rc = MHD_queue_response(r->mhd, (unsigned)r->http, resp);
    MHD_destroy_response(resp);
    return rc;
}

void rr__http_wake(rr__request *r) {
    MHD_resume_connection(r->mhd);
}

/* ---- callbacks ------------------------------------------------------------------------------- */

static rr__conn *conn_of(MHD_conn *mhd) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return info ? info->socket_context : NULL;
}

/* The request line is read. No request is made yet: on_completed is not called for one whose
 * headers never end. */
static void *on_uri(void *cls, const char *uri, MHD_conn *mhd) {
    rr__server *s = cls;
    rr__conn   *c = conn_of(mhd);

    if (c)
        rr__watch_phase(s->watch, c, RR__HEADER);
    return NULL;
}

static rr__request *begin(rr__server *s, MHD_conn *mhd, const char *url, const char *method) {
    rr__conn    *c = conn_of(mhd); /* NULL: there was no memory for it */
    rr__request *r = c ? calloc(1, sizeof *r) : NULL;

    if (!r)
        return NULL;
    r->server = s;
    r->mhd = mhd;
    r->conn = c;
    r->start_us = c->header_us;
    r->uri = url; /* both of the connection's memory, which lives as long as the request */
    r->method = method;
    atomic_fetch_add(&s->n_requests, 1);
    take_headers(r);
    rr__watch_phase(s->watch, r->conn, RR__BODY);
    return r;
}

/* The whole request is here: answer it, or hand it to a worker and sleep. */
static enum MHD_Result dispatch(rr__request *r) {
    if (r->problem != RR__P_NONE || !r->route)
        return answer(r);
    if (r->route->op == RR__OP_NOW) {
        r->route->fn(r);
        return answer(r);
    }
    r->stage = RR__RUNNING;
    r->step = rr__work;
    rr__watch_phase(r->server->watch, r->conn, RR__ENGINE);
    MHD_suspend_connection(r->mhd);
    rr__workers_push(r->server->workers, r);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls, MHD_conn *mhd, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **ctx) {
    rr__request *r = *ctx;

    if (!r) {
        *ctx = r = begin(cls, mhd, url, method);
        if (!r)
            return MHD_NO;
        if (r->ambiguous || (r->problem != RR__P_NONE &&
                             number(header(mhd, MHD_HTTP_HEADER_CONTENT_LENGTH)) > SWALLOW))
            return answer(r);
        return MHD_YES;
    }
    switch (r->stage) {
    case RR__READING:
        if (*size == 0)
            return dispatch(r);
        take_body(r, data, *size);
        *size = 0;
        return MHD_YES;
    case RR__RUNNING:
        return answer(r);
    case RR__ANSWERED:
        break;
    }
    return MHD_YES;
}

static void on_completed(void *cls, MHD_conn *mhd, void **ctx,
                         enum MHD_RequestTerminationCode how) {
    rr__request *r = *ctx;
    rr__server  *s = cls;

    if (!r)
        return;
    *ctx = NULL;
    r->left = how != MHD_REQUEST_TERMINATED_COMPLETED_OK || r->problem == RR__P_CANCELED;
    if (!r->total_us)
        r->total_us = rr_now_us() - r->start_us;
    rr__metrics_request(s->metrics, r);
    rr__log_request(s->log, r);
    rr__watch_phase(s->watch, r->conn, RR__IDLE);
    drop(r);
    rr_job_free(r->job);
    rr__out_free(&r->out);
    rr__arena_free(&r->arena);
    free(r);
    atomic_fetch_sub(&s->n_requests, 1);
}

static void on_connection(void *cls, MHD_conn *mhd, void **ctx,
                          enum MHD_ConnectionNotificationCode what) {
    rr__server *s = cls;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

        *ctx = info ? rr__watch_connect(s->watch, info->connect_fd) : NULL;
    } else {
        rr__watch_disconnect(s->watch, *ctx);
        *ctx = NULL;
    }
}

rr_status rr__http_start(rr__server *s, int listen_fd, rr_error *err) {
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                     (s->pem_cert ? MHD_USE_TLS : 0);
    struct MHD_OptionItem tls[] = {
        {s->pem_cert ? MHD_OPTION_HTTPS_MEM_CERT : MHD_OPTION_END, 0, s->pem_cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, s->pem_key},
        {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem pool[] = {
        {s->o.io_threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, s->o.io_threads, NULL},
        {MHD_OPTION_END, 0, NULL}};

    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, listen_fd,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        s, MHD_OPTION_URI_LOG_CALLBACK, on_uri, s, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)s->o.max_conns, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32 * 1024,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_ARRAY, pool, MHD_OPTION_ARRAY, tls,
        MHD_OPTION_END);
    return s->daemon ? RR_OK
                     : rr__fail(err, RR_E_IO, "cannot serve on %s: libmicrohttpd refused%s",
                                s->address, s->pem_cert ? " (certificate or key?)" : "");
}
