/* request.h - what the files of server/ share: the server, a connection, a request, the tables.
 *
 * A request's life, and the thread it is on:
 *   I/O      http.c    headers: route, key, limits; body into one buffer
 *   worker   work.c    body.c reads the fields, the dialect makes a job of them, rr_submit
 *   engine             scores; done wakes the connection
 *   I/O      http.c    reply.c and the dialect write the answer; log.c and metrics.c note it
 * Only one thread at a time holds a request; the hand-overs (suspend, queue, done) order memory. */
#ifndef RR_SERVER_REQUEST_H
#define RR_SERVER_REQUEST_H

#include "base/arena.h"
#include "base/json.h"
#include "base/json_out.h"
#include "server/body.h"
#include "server/server.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

typedef struct rr__request rr__request;
typedef struct rr__dialect rr__dialect;
typedef struct rr__route   rr__route;

/* ---- what can go wrong: name, HTTP status, TEI's error_type, OpenAI's type ------------------ */
#define RR__PROBLEM_MAP(X)                                                                         \
    X(NONE, 200, "", "")                                                                           \
    X(MALFORMED, 400, "Validation", "BadRequestError")      /* not JSON                   */       \
    X(FIELD, 400, "Validation", "BadRequestError")          /* a field missing or wrong   */       \
    X(EMPTY, 400, "Empty", "BadRequestError")               /* nothing to score           */       \
    X(TOO_LONG, 400, "Validation", "BadRequestError")       /* pair over max_length       */       \
    X(TOO_LARGE, 413, "Validation", "RequestTooLargeError") /* body, documents, tokens    */       \
    X(KEY, 401, "Unauthorized", "AuthenticationError")                                             \
    X(NOT_FOUND, 404, "NotFound", "NotFoundError")                                                 \
    X(METHOD, 405, "MethodNotAllowed", "BadRequestError")                                          \
    X(ENCODING, 415, "Validation", "BadRequestError")                                              \
    X(BUSY, 429, "Overloaded", "RateLimitError")                                                   \
    X(CANCELED, 499, "Canceled", "CanceledError")                                                  \
    X(BACKEND, 500, "Backend", "InternalServerError")                                              \
    X(UNAVAILABLE, 503, "Unhealthy", "ServiceUnavailableError")                                    \
    X(TIMEOUT, 504, "Timeout", "TimeoutError")
#define RR__PROBLEM_ENUM(name, http, tei, openai) RR__P_##name,
typedef enum rr__problem { RR__PROBLEM_MAP(RR__PROBLEM_ENUM) RR__P_COUNT } rr__problem;

int         rr__problem_http(rr__problem p);
const char *rr__problem_tei(rr__problem p);
const char *rr__problem_openai(rr__problem p);

/* ---- tables: a path belongs to a dialect -------------------------------------------------- */

/* How one family of clients speaks. */
struct rr__dialect {
    const char *name;
    /* Fields to job: set query or queries, docs, n and the options, or say what is wrong (0). */
    int (*accept)(rr__request *r);
    /* Scores to body, into r->out. */
    void (*write)(rr__request *r);
    /* Problem to body, into r->out; returns the HTTP status, usually rr__problem_http(). */
    int (*fail)(rr__request *r);
};

typedef enum rr__op {
    RR__OP_NOW,  /* fn writes the answer at once on the I/O thread           */
    RR__OP_WORK, /* fn writes the answer on a worker                         */
    RR__OP_SCORE /* the dialect's accept, the engine, the dialect's write    */
} rr__op;

struct rr__route {
    const char        *method, *path; /* a '*' in path is one segment, kept in r->segment */
    rr__op             op;
    const rr__dialect *dialect;
    void (*fn)(rr__request *r);
    int open; /* 1: needs no key */
};

extern const rr__route   rr__routes[];
extern const int         rr__n_routes;
extern const rr__dialect rr__any, rr__tei, rr__predict, rr__pairs, rr__results, rr__score,
    rr__kserve, rr__nim, rr__llamacpp, rr__vertex, rr__voyage, rr__infinity, rr__sglang;

/* The route of a request; on failure NULL and *problem is NOT_FOUND or METHOD. */
const rr__route *rr__route_find(const char *method, const char *path, rr_str segment[2],
                                rr__problem *problem);
/* The methods of a path, for the Allow header. */
const char *rr__route_allow(const char *path);

/* ---- connection: one TCP connection, owned by watch.c ---------------------------------------- */
/* Where on_request stands with a request. */
typedef enum rr__stage { RR__READING, RR__RUNNING, RR__ANSWERED } rr__stage;

/* What the watch bounds the time of. */
typedef enum rr__phase { RR__IDLE, RR__HEADER, RR__BODY, RR__ENGINE, RR__WRITE } rr__phase;

typedef struct rr__conn {
    struct rr__conn *prev, *next;
    int              fd;
    int64_t          header_us;   /* when the present request began   */
    int64_t          deadline_us; /* cut when this passes; 0 = never  */
    uint32_t         turn;        /* tells connections on one fd apart    */
    int              left;        /* the client closed its side           */
    rr_job          *job;         /* to cancel when the client leaves */
} rr__conn;

/* ---- request --------------------------------------------------------------------------------- */
struct rr__request {
    rr__server            *server;
    rr__conn              *conn;
    struct MHD_Connection *mhd;
    const rr__route       *route; /* NULL: no such path */
    const rr__dialect     *dialect;
    rr_str                 segment[2];
    rr__arena              arena;
    rr__request           *next; /* in the workers' queue */
    rr__stage              stage;
    int64_t                start_us, parsed_us, total_us;
    int                    ambiguous; /* two headers disagree, or may, on where it ends */
    int                    left;      /* the client did not take the whole answer */
    const char            *uri;
    const char            *method;
    char                   id[65], trace[33], parent[17], span[17];

    char   *body;
    size_t  body_len, body_cap;
    int     drop_body;   /* read it, but do not keep it */
    int     gzip;        /* body is compressed until a worker takes it up */
    int64_t header_len;  /* KServe: bytes of JSON before the binary tensors; -1 = no header */
    int64_t deadline_ms; /* from X-Request-Deadline-Ms; 0 = none */

    rr__fields     fields;
    rr_str         query;
    const rr_str  *queries;        /* [n], or NULL: all have `query`            */
    const rr_str  *docs;           /* [n]                                       */
    const int32_t *ids, *cu, *seg; /* instead of text: sequences already tokenized */
    size_t         n;
    size_t         top_n; /* 0 = all */
    rr_submit_opts opts;
    int            raw, details, echo;
    void          *extra; /* of the dialect, in the arena */

    rr_job     *job;
    atomic_int  parts; /* of submit and done, which are over */
    rr__problem problem;
    char        text[256];
    void (*step)(rr__request *r); /* what a worker does with it */
    int answer_ready;             /* out holds the answer       */

    rr__json_out out;
    const char  *type;  /* content type; NULL = application/json  */
    const void  *fixed; /* static answer instead of out           */
    size_t       fixed_len;
    char         extra_header[24]; /* Inference-Header-Content-Length of KServe's binary answers */
    int          http;
    size_t       n_truncated;
    uint64_t     n_tokens, n_chars;
    rr_timing    timing;
};

/* Note what is wrong; 0, so that accept can return it. */
int rr__problem_set(rr__request *r, rr__problem p, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct rr__server {
    rr__server_opts     o;
    rr_model           *model;
    rr_engine          *engine;
    rr_model_info       model_info;
    rr_engine_info      engine_info;
    const char         *model_name;
    char               *address;
    struct MHD_Daemon  *daemon;
    int                 quiesced; /* the listening socket once a drain has shut it, or -1 */
    char               *pem_cert, *pem_key;
    struct rr__workers *workers;
    struct rr__watch   *watch;
    struct rr__log     *log;
    struct rr__keys    *keys;
    struct rr__metrics *metrics;
    struct rr__health  *health;
    atomic_int          draining;
    atomic_int          n_requests; /* between first byte and last  */
    _Atomic int64_t     buffered;   /* bytes of bodies held         */
};

/* ---- the other files ------------------------------------------------------------------------- */

/* http.c: libmicrohttpd's callbacks. */
rr_status rr__http_start(rr__server *s, int listen_fd, rr_error *err);

/* listen.c: the socket of opts, or the one inherited; "http://host:port" of a socket as it is (the
 * port may have been 0), owned by the caller, NULL if it has no name; become `program`, which
 * inherits the socket (returns only if that fails). */
rr_status rr__listen(const rr__server_opts *o, int *out, rr_error *err);
char     *rr__listen_address(int fd, int tls);
rr_status rr__listen_hand_over(int fd, const char *program, char **argv, rr_error *err);
/* Wake the connection of a request whose answer or scores are there. Any thread. */
void rr__http_wake(rr__request *r);

/* work.c */
rr_status rr__workers_open(int n, struct rr__workers **out, rr_error *err);
void      rr__workers_close(struct rr__workers *w);
void      rr__workers_push(struct rr__workers *w, rr__request *r);
/* The worker's part of a request: parse and submit, or answer. */
void rr__work(rr__request *r);

/* watch.c */
rr_status rr__watch_open(rr__server *s, rr_error *err);
void      rr__watch_close(struct rr__watch *w);
rr__conn *rr__watch_connect(struct rr__watch *w, int fd);
void      rr__watch_disconnect(struct rr__watch *w, rr__conn *c);
void      rr__watch_phase(struct rr__watch *w, rr__conn *c, rr__phase phase);
/* While a job runs it is canceled when the client leaves; NULL: it is over. */
void rr__watch_job(struct rr__watch *w, rr__conn *c, rr_job *job);
/* Ask every running job to stop. */
void rr__watch_cancel_all(struct rr__watch *w);
int  rr__watch_connections(struct rr__watch *w);

/* reply.c: what several dialects write. */
typedef struct rr__ranked {
    float    score;
    uint32_t index;
} rr__ranked;
/* The n_out best of r's scores, best first, ties to the lower index; in r's arena. NULL: no memory. */
const rr__ranked *rr__rank(rr__request *r, size_t *n_out);
/* The same for scores first .. first + *n alone, whatever top_n says; index counts from first. */
const rr__ranked *rr__rank_some(rr__request *r, size_t first, size_t *n);
float             rr__activate(const rr__request *r, float logit);
void              rr__write_model(rr__request *r); /* "model": as asked for, or ours */
void              rr__write_details(rr__request *r, size_t index); /* "tokens", "truncated"   */
/* The list of results, best first, with documents as strings: Voyage, Infinity, SGLang. */
void rr__write_plain(rr__request *r, const char *score_key);
void rr__write_timings(rr__request *r); /* "timings": {...}        */
void rr__write_usage(rr__request *r);   /* "usage": {...}          */
/* Common work of accept: options that mean the same in every dialect. */
int rr__take_options(rr__request *r);
/* Documents of a list into r->docs with all limits checked. */
int rr__take_docs(rr__request *r, const rr__texts *docs, const char *name);
/* accept of all bodies with "query" and "documents" (results.c). */
int rr__results_accept(rr__request *r);
/* The problem as OpenAI's clients, Cohere's and Jina's look for it (results.c); as TEI's do (tei.c). */
int rr__results_fail(rr__request *r);
int rr__tei_fail(rr__request *r);
/* A result as TEI has it (tei.c); first: the place of index 0 in r->docs. */
void rr__write_tei(rr__request *r, const rr__ranked *ranked, size_t first);
/* Fill r->http and r->out for r->problem, through the dialect. */
void rr__write_problem(rr__request *r);

/* keys.c */
rr_status rr__keys_open(const char *path, struct rr__keys **out, rr_error *err);
rr_status rr__keys_reload(struct rr__keys *k, rr_error *err);
int       rr__keys_allow(struct rr__keys *k, const char *authorization, const char *x_api_key);
void      rr__keys_close(struct rr__keys *k);

/* log.c */
rr_status rr__log_open(const char *path, struct rr__log **out, rr_error *err);
void      rr__log_request(struct rr__log *l, const rr__request *r);
void      rr__log_event(struct rr__log *l, const char *level, const char *text);
uint64_t  rr__log_dropped(const struct rr__log *l);
void      rr__log_flush(struct rr__log *l); /* waits a second at most: a disk may stall */
void      rr__log_close(struct rr__log *l);

/* metrics.c */
rr_status rr__metrics_open(struct rr__metrics **out, rr_error *err);
void      rr__metrics_request(struct rr__metrics *m, const rr__request *r);
void      rr__metrics_close(struct rr__metrics *m);

/* health.c */
rr_status rr__health_open(rr__server *s, rr_error *err);
void      rr__health_close(struct rr__health *h);
/* 1 if the last canary came back well and in time; why gets a reason otherwise. */
int rr__health_ok(struct rr__health *h, char *why, size_t cap);

#endif
