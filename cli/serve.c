/* serve.c - `rerank serve`: the HTTP server over an engine.
 *
 * One table holds every flag with its default and the reason it exists; options.c reads it, and
 * RERANK_ variables too. Flags win over the environment, the environment over defaults. */
#define _DEFAULT_SOURCE /* readlink */
#include "cli.h"
#include "options.h"
#include "trt.h"

#include "server/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static cli_common      common;
static rr__server_opts server = {.port = 8787};
static rr_engine_opts  more; /* what is not in common */
static int64_t         memory_limit;

#define INT_MOST  INT32_MAX
#define SIZE_MOST 9007199254740992.0 /* 2^53: every whole number below is itself */

static const cli_flag flags[] = {
    {"Engine", 0, CLI_TITLE, NULL, NULL, NULL, 0, 0},
    {"model-name", 0, CLI_TEXT, &server.model_name, "NAME",
     "what clients are told (default: last part of DIR)", 0, 0},
    {"instances", 0, CLI_INT32, &more.instances, "N", "workers a device on one copy of the weights",
     0, INT_MOST},
    {"tokenize-threads", 0, CLI_INT32, &more.tokenize_threads, "N",
     "threads that share a large request", 0, INT_MOST},
    {"max-batch-seqs", 0, CLI_INT32, &more.max_batch_seqs, "N", "sequences in one forward pass", 0,
     INT_MOST},
    {"max-wait-us", 0, CLI_INT32, &more.max_wait_us, "N",
     "how long an idle device waits for company (default: 0; a busy one batches for free)", 0,
     INT_MOST},
    {"memory-limit", 0, CLI_SIZE, &memory_limit, "BYTES", "device memory this engine may take", 0,
     SIZE_MOST},
    {"cache-tokens", 0, CLI_SIZE, &more.cache_tokens, "N",
     "cache of tokenized documents; -1 for none", -1, SIZE_MOST},
    {"Where to listen", 0, CLI_TITLE, NULL, NULL, NULL, 0, 0},
    {"host", 0, CLI_TEXT, &server.host, "ADDR",
     "address to bind (default: 127.0.0.1, so that nobody else can reach it)", 0, 0},
    {"port", 0, CLI_INT32, &server.port, "N", "port (default: 8787; 0 takes any free one)", 0,
     INT_MOST},
    {"unix", 0, CLI_TEXT, &server.unix_path, "PATH", "listen on this socket instead", 0, 0},
    {"tls-cert", 0, CLI_TEXT, &server.tls_cert, "FILE", "PEM certificate chain: serve https", 0, 0},
    {"tls-key", 0, CLI_TEXT, &server.tls_key, "FILE", "PEM key", 0, 0},
    {"api-keys", 0, CLI_TEXT, &server.keys_path, "FILE",
     "one key a line; requests need one; read again on SIGHUP", 0, 0},
    {"cors-origin", 0, CLI_TEXT, &server.cors_origin, "ORIGIN",
     "let pages of this origin (or *) call from a browser", 0, 0},
    {"log", 0, CLI_TEXT, &server.log_path, "FILE",
     "request log (default: standard error; off for none)", 0, 0},
    {"Limits", 0, CLI_TITLE, NULL, NULL, NULL, 0, 0},
    {"max-body", 0, CLI_SIZE, &server.max_body, "BYTES",
     "one body: bounds what one client can make the server hold (default: 64M)", 0, SIZE_MOST},
    {"max-buffered", 0, CLI_SIZE, &server.max_buffered, "BYTES",
     "all bodies together: bounds what all clients can (default: 1G)", 0, SIZE_MOST},
    {"max-docs", 0, CLI_INT32, &server.max_docs, "N",
     "documents of one request: bounds its answer (default: 16384)", 0, INT_MOST},
    {"max-request-tokens", 0, CLI_SIZE, &server.max_tokens, "N",
     "tokens of one request: bounds its device time (default: the queue's limit)", 0, SIZE_MOST},
    {"max-queue-tokens", 0, CLI_SIZE, &more.max_queue_tokens, "N",
     "tokens that may wait: bounds latency; beyond it 429 (default: 4M)", 0, SIZE_MOST},
    {"max-connections", 0, CLI_INT32, &server.max_conns, "N",
     "open connections: file descriptors and memory (default: 4096)", 0, INT_MOST},
    {"header-timeout", 0, CLI_INT32, &server.header_timeout_s, "SECONDS",
     "first byte to end of headers: cuts clients that trickle (default: 10)", 0, INT_MOST},
    {"body-timeout", 0, CLI_INT32, &server.body_timeout_s, "SECONDS",
     "from there to the end of the body (default: 60)", 0, INT_MOST},
    {"write-timeout", 0, CLI_INT32, &server.write_timeout_s, "SECONDS",
     "for the client to take its answer (default: 60)", 0, INT_MOST},
    {"idle-timeout", 0, CLI_INT32, &server.idle_timeout_s, "SECONDS",
     "between requests; a balancer's should be shorter (default: 75)", 0, INT_MOST},
    {"Running", 0, CLI_TITLE, NULL, NULL, NULL, 0, 0},
    {"io-threads", 0, CLI_INT32, &server.io_threads, "N", "threads for sockets (default: 1 to 4)",
     0, INT_MOST},
    {"workers", 0, CLI_INT32, &server.workers, "N",
     "threads that parse bodies and tokenize (default: the cores, 2 to 8)", 0, INT_MOST},
    {"drain-delay", 0, CLI_INT32, &server.drain_delay_ms, "MS",
     "after SIGTERM, serve on while /ready says no: time for a balancer to notice (default: 0)", 0,
     INT_MOST},
    {"drain-timeout", 0, CLI_INT32, &server.drain_timeout_s, "SECONDS",
     "then, most time for requests under way (default: 30)", 0, INT_MOST},
    {"health-every", 0, CLI_INT32, &server.health_every_ms, "MS",
     "how often a known pair goes through every instance (default: 5000)", 0, INT_MOST},
    {"health-timeout", 0, CLI_INT32, &server.health_timeout_ms, "MS",
     "an answer later than this is a hang (default: 30000)", 0, INT_MOST},
    {"renew-after", 0, CLI_INT32, &server.renew_after_s, "SECONDS",
     "no instance has worked for so long: start anew, on the same socket (default: 10; -1: never)",
     -1, INT_MOST},
};

static const char summary[] =
    "Serves a reranker over HTTP to clients of TEI, Cohere, Jina, vLLM, KServe and others;\n"
    "a playground is at /, the description at /openapi.json.\n"
    "Every flag has a variable: --max-docs is RERANK_MAX_DOCS. Flags win.";

/* All that the flags say about the engine. */
static rr_engine_opts engine_opts(void) {
    rr_engine_opts o;

    cli_engine_opts(&common, &o);
    o.instances = more.instances;
    o.tokenize_threads = more.tokenize_threads;
    o.max_batch_seqs = more.max_batch_seqs;
    o.max_queue_tokens = more.max_queue_tokens;
    o.max_wait_us = more.max_wait_us;
    o.memory_limit = (uint64_t)memory_limit;
    o.cache_tokens = more.cache_tokens;
    return o;
}

/* A server that ends by itself did so for a reason; EXIT_FAILED where it could not start anew. */
static int run(rr__server *s, int argc, char **argv) {
    char     program[4096] = "", **same = calloc((size_t)argc + 2, sizeof *same);
    rr_error err;

    /* By name, so that a newer file under it is what starts. */
    if (!same || readlink("/proc/self/exe", program, sizeof program - 1) < 0)
        program[0] = 0;

    switch (rr__server_run(s)) {
    case RR__RUN_DRAINED:
        free(same);
        return EXIT_OK;
    case RR__RUN_RENEW:
        if (!same)
            break;
        same[0] = program;
        memcpy(same + 1, argv, (size_t)argc * sizeof *argv);
        rr__server_renew(s, program, same, &err);
        cli_fail("serve", EXIT_FAILED, "%s", err.text);
        break;
    default: /* something hangs in the engine: closing it would hang too */
        break;
    }
    _Exit(EXIT_FAILED);
}

int cmd_serve(int argc, char **argv) {
    const cli_command command = {.name = "serve",
                                 .usage = "[options]",
                                 .summary = summary,
                                 .flag = flags,
                                 .n_flag = sizeof flags / sizeof flags[0],
                                 .common = &common};
    rr_model         *model = NULL;
    rr_engine        *engine = NULL;
    rr__server       *s = NULL;
    rr_engine_opts    o;
    rr_engine_info    info;
    rr_error          err;
    cli_rest          rest;
    const char       *dir;
    int               rc = cli_environment(&command);

    if (rc < 0)
        rc = cli_parse(&command, argc, argv, &rest);
    if (rc >= 0)
        return rc;
    if (rest.n > 0)
        return cli_fail("serve", EXIT_USAGE, "unexpected \"%s\"", rest.arg[0]);
    rc = EXIT_OK;
    o = engine_opts();
    server.refuse_long = o.truncation == RR_TRUNC_ERROR;
    server.max_query = (int32_t)common.max_query;
    dir = cli_model_dir(&common);
    rr__server_block_signals(); /* before any thread starts */
    if (trt_ready(&common, &err) || rr_model_open(dir, &model, &err) ||
        rr_engine_open(model, &o, &engine, &err) ||
        rr__server_open(&server, model, engine, &s, &err)) {
        rc = cli_fail("serve", EXIT_FAILED, "%s", err.text);
        goto done;
    }
    rr_engine_describe(engine, &info);
    if (info.left_out)
        fprintf(stderr, "rerank serve: without %s\n", info.left_out);
    printf("%s  %s on %s, %s; weights %.1f MB, each instance %.1f MB more\n", rr__server_address(s),
           dir, info.device, info.precision, (double)info.weight_bytes / 1e6,
           (double)info.instance_bytes / 1e6);
    fflush(stdout);
    rc = run(s, argc, argv);
done:
    rr__server_close(s);
    rr_engine_close(engine);
    rr_model_close(model);
    return rc;
}
