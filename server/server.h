/* server.h - HTTP in front of an engine: what cli/serve.c needs to know.
 *
 *     rr__server_opts o = {.host = "127.0.0.1", .port = 8787};   // zero means default
 *     rr__server_open(&o, model, engine, &server, &err);         // listens from here on; an inherited
 *                                                                // socket (LISTEN_FDS) comes first
 *     rr__server_run(server);                                    // until SIGTERM or SIGINT; drains
 *     rr__server_close(server);                                  // before rr_engine_close
 *
 * Who does what (docs/SERVER.md has the picture): I/O threads of libmicrohttpd read bodies and write
 * answers; worker threads parse bodies and call rr_submit, so that tokenizing a large request
 * never holds up a connection; the engine's threads score and wake the connection; a watch thread
 * sees clients leave and cuts connections that are too slow; a log thread writes the lines. */
#ifndef RR_SERVER_H
#define RR_SERVER_H

#include "base/error.h"

typedef struct rr__server rr__server;

typedef struct rr__server_opts {
    const char *host;       /* NULL = "127.0.0.1"                                         */
    int         port;       /* 0 = any free one, see rr__server_address                   */
    const char *unix_path;  /* listen here instead of host and port                       */
    const char *model_name; /* what clients are told; NULL = last part of the model's dir */
    const char *keys_path;  /* one API key a line; NULL = no key needed                   */
    const char *tls_cert;   /* PEM files; both or none                                    */
    const char *tls_key;
    const char *cors_origin; /* "*" or one origin; NULL = no CORS headers                  */
    const char *log_path;    /* NULL = standard error, "off" = none                        */

    int64_t max_body;     /* bytes of one body; 0 = 64 MiB                           */
    int64_t max_buffered; /* bytes of all bodies held at once; 0 = 1 GiB             */
    int64_t max_tokens;   /* tokens of one request; 0 = no limit but the queue's     */
    int32_t max_docs;     /* documents of one request; 0 = 16384                     */
    int32_t max_conns;    /* connections; 0 = 4096                                   */
    int32_t max_query;    /* tokens of a query, unless the request says; 0 = the engine's default */
    int32_t refuse_long;  /* 1: a pair that is too long is an error, unless the request says */
    int32_t io_threads;   /* 0 = half the cores, 1..4                                */
    int32_t workers;      /* 0 = the cores, 2..8                                     */

    int32_t header_timeout_s;  /* from first byte to end of headers; 0 = 10            */
    int32_t body_timeout_s;    /* from there to the end of the body; 0 = 60            */
    int32_t write_timeout_s;   /* for the client to take the answer; 0 = 60            */
    int32_t idle_timeout_s;    /* between requests; 0 = 75                             */
    int32_t drain_delay_ms;    /* after SIGTERM: /ready says no, all else goes on      */
    int32_t drain_timeout_s;   /* then: most time for requests under way; 0 = 30       */
    int32_t health_every_ms;   /* canary; 0 = 5000                                     */
    int32_t health_timeout_ms; /* a canary that takes longer is a hang; 0 = 30000     */
    int32_t renew_after_s; /* no instance works for so long: RR__RUN_RENEW; 0 = 10, -1 = never */
} rr__server_opts;

/* Start to listen and answer. Strings of opts must outlive the server. */
rr_status rr__server_open(const rr__server_opts *opts, rr_model *model, rr_engine *engine,
                          rr__server **out, rr_error *err);

/* "http://127.0.0.1:8787" or "unix:/run/rerank.sock"; lives as long as the server. */
const char *rr__server_address(const rr__server *server);

/* Serve until a signal, then drain. SIGTERM and SIGINT end it; SIGUSR1, or no instance that works for
 * renew_after_s, asks for a new program in this one's place; SIGHUP reads the keys again. The caller
 * must have blocked these signals before any thread was started (rr__server_block_signals). */
typedef enum rr__run_end {
    RR__RUN_DRAINED, /* all requests were answered                                            */
    RR__RUN_STUCK,   /* some are still with the engine: end the process without closing it    */
    RR__RUN_RENEW    /* drained as far as it goes; the socket still takes connections         */
} rr__run_end;

rr__run_end rr__server_run(rr__server *server);
void        rr__server_block_signals(void);

/* After RR__RUN_RENEW: write out the log and become `program` with argv, which inherits the listening
 * socket the way systemd hands one over (LISTEN_FDS); connections made in between wait in it. Returns
 * only if that fails. */
rr_status rr__server_renew(rr__server *server, const char *program, char **argv, rr_error *err);

/* Stop at once. Only after RR__RUN_DRAINED. */
void rr__server_close(rr__server *server);

#endif
