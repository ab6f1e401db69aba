/* serve.c - `rerank serve`: the HTTP server over an engine.
 *
 * One table holds every flag with its environment variable (RERANK_ and the flag in capitals), its
 * default and the reason it exists. Flags win over the environment, the environment over defaults. */
#include "cli.h"
#include "options.h"
#include "server/server.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct serve_opts {
    const char     *model;
    rr__server_opts server;
    rr_engine_opts  engine;
    const char     *truncation, *side;
} serve_opts;

typedef enum kind { TEXT, INT32, INT64, TITLE } kind;

typedef struct flag {
    const char *name;
    kind        kind;
    size_t      at; /* offset in serve_opts */
    const char *value, *help;
} flag;

#define AT(field) offsetof(serve_opts, field)

static const flag flags[] = {
    {"Model and engine", TITLE, 0, NULL, NULL},
    {"model", TEXT, AT(model), "DIR", "model folder (default: the embedded mini model); also -m"},
    {"model-name", TEXT, AT(server.model_name), "NAME",
     "what clients are told (default: last part of DIR)"},
    {"backend", TEXT, AT(engine.backend), "NAME",
     "cuda, trt, cpu or ref (default: best that runs)"},
    {"precision", TEXT, AT(engine.precision), "P", "auto, fp32, bf16, fp16, int8 or fp8"},
    {"devices", TEXT, AT(engine.devices), "LIST", "GPUs: 0, or 0,1, or all"},
    {"plan", TEXT, AT(engine.plan_path), "FILE", "TensorRT engine written by rerank build"},
    {"calibration", TEXT, AT(engine.calibration_path), "FILE", "scales from rerank calibrate"},
    {"instances", INT32, AT(engine.instances), "N", "workers a device on one copy of the weights"},
    {"threads", INT32, AT(engine.threads), "N", "CPU threads of an instance (default: all cores)"},
    {"tokenize-threads", INT32, AT(engine.tokenize_threads), "N",
     "threads that share a large request"},
    {"max-length", INT32, AT(engine.max_length), "N",
     "tokens of a pair, special ones counted: cost grows with it (default: 512)"},
    {"truncation", TEXT, AT(truncation), "POLICY",
     "a pair that is longer: only_second, longest_first or error (default: only_second)"},
    {"truncation-side", TEXT, AT(side), "SIDE", "which end is cut: right or left"},
    {"max-batch-tokens", INT32, AT(engine.max_batch_tokens), "N",
     "tokens in one forward pass: device memory (default: 16384)"},
    {"max-batch-seqs", INT32, AT(engine.max_batch_seqs), "N", "sequences in one forward pass"},
    {"max-wait-us", INT32, AT(engine.max_wait_us), "N",
     "how long an idle device waits for company (default: 0; a busy one batches for free)"},
    {"memory-limit", INT64, AT(engine.memory_limit), "BYTES", "device memory this engine may take"},
    {"cache-tokens", INT64, AT(engine.cache_tokens), "N",
     "cache of tokenized documents; -1 for none"},

    {"Where to listen", TITLE, 0, NULL, NULL},
    {"host", TEXT, AT(server.host), "ADDR",
     "address to bind (default: 127.0.0.1, so that nobody else can reach it)"},
    {"port", INT32, AT(server.port), "N", "port (default: 8787; 0 takes any free one)"},
    {"unix", TEXT, AT(server.unix_path), "PATH", "listen on this socket instead"},
    {"tls-cert", TEXT, AT(server.tls_cert), "FILE", "PEM certificate chain: serve https"},
    {"tls-key", TEXT, AT(server.tls_key), "FILE", "PEM key"},
    {"api-keys", TEXT, AT(server.keys_path), "FILE",
     "one key a line; requests need one; read again on SIGHUP"},
    {"cors-origin", TEXT, AT(server.cors_origin), "ORIGIN",
     "let pages of this origin (or *) call from a browser"},
    {"log", TEXT, AT(server.log_path), "FILE",
     "request log (default: standard error; off for none)"},

    {"Limits", TITLE, 0, NULL, NULL},
    {"max-body", INT64, AT(server.max_body), "BYTES",
     "one body: bounds what one client can make the server hold (default: 64M)"},
    {"max-buffered", INT64, AT(server.max_buffered), "BYTES",
     "all bodies together: bounds what all clients can (default: 1G)"},
    {"max-docs", INT32, AT(server.max_docs), "N",
     "documents of one request: bounds its answer (default: 16384)"},
    {"max-request-tokens", INT64, AT(server.max_tokens), "N",
     "tokens of one request: bounds its device time (default: the queue's limit)"},
    {"max-queue-tokens", INT64, AT(engine.max_queue_tokens), "N",
     "tokens that may wait: bounds latency; beyond it 429 (default: 4M)"},
    {"max-connections", INT32, AT(server.max_conns), "N",
     "open connections: file descriptors and memory (default: 4096)"},
    {"header-timeout", INT32, AT(server.header_timeout_s), "SECONDS",
     "first byte to end of headers: cuts clients that trickle (default: 10)"},
    {"body-timeout", INT32, AT(server.body_timeout_s), "SECONDS",
     "from there to the end of the body (default: 60)"},
    {"write-timeout", INT32, AT(server.write_timeout_s), "SECONDS",
     "for the client to take its answer (default: 60)"},
    {"idle-timeout", INT32, AT(server.idle_timeout_s), "SECONDS",
     "between requests; a balancer's should be shorter (default: 75)"},

    {"Running", TITLE, 0, NULL, NULL},
    {"io-threads", INT32, AT(server.io_threads), "N", "threads for sockets (default: 1 to 4)"},
    {"workers", INT32, AT(server.workers), "N",
     "threads that parse bodies and tokenize (default: the cores, 2 to 8)"},
    {"drain-delay", INT32, AT(server.drain_delay_ms), "MS",
     "after SIGTERM, serve on while /ready says no: time for a balancer to notice (default: 0)"},
    {"drain-timeout", INT32, AT(server.drain_timeout_s), "SECONDS",
     "then, most time for requests under way (default: 30)"},
    {"health-every", INT32, AT(server.health_every_ms), "MS",
     "how often a known pair goes through every instance (default: 5000)"},
    {"health-timeout", INT32, AT(server.health_timeout_ms), "MS",
     "an answer later than this is a hang (default: 30000)"},
};
enum { N_FLAGS = sizeof flags / sizeof flags[0] };

static void usage(FILE *to) {
    fprintf(to, "usage: rerank serve [options]\n\n"
                "Serves a reranker over HTTP to clients of TEI, Cohere, Jina, vLLM and KServe;\n"
                "a playground is at /, the description at /openapi.json.\n"
                "Every flag has a variable: --max-docs is RERANK_MAX_DOCS. Flags win.\n");
    for (int i = 0; i < N_FLAGS; i++) {
        char name[48];

        if (flags[i].kind == TITLE) {
            fprintf(to, "\n%s\n", flags[i].name);
            continue;
        }
        snprintf(name, sizeof name, "--%s %s", flags[i].name, flags[i].value ? flags[i].value : "");
        fprintf(to, "  %-28s %s\n", name, flags[i].help);
    }
}

/* A whole number with an optional K, M or G (of 1024). */
static int number(const char *text, int64_t *out) {
    char     *end;
    long long v, unit = 1;

    errno = 0;
    v = strtoll(text, &end, 10);
    if (end == text || errno)
        return 0;
    if (*end == 'k' || *end == 'K')
        unit = 1LL << 10, end++;
    else if (*end == 'm' || *end == 'M')
        unit = 1LL << 20, end++;
    else if (*end == 'g' || *end == 'G')
        unit = 1LL << 30, end++;
    if (*end || v > INT64_MAX / unit || v < -1)
        return 0;
    *out = v * unit;
    return 1;
}

static int set(serve_opts *o, const flag *f, const char *text, const char *what) {
    char   *field = (char *)o + f->at;
    int64_t v = 0;

    if (f->kind == TEXT) {
        memcpy(field, &text, sizeof text);
        return 1;
    }
    if (!number(text, &v) || (f->kind == INT32 && v > INT32_MAX)) {
        fprintf(stderr, "rerank serve: %s: \"%s\" is not a number that fits\n", what, text);
        return 0;
    }
    if (f->kind == INT32)
        memcpy(field, &(int32_t){(int32_t)v}, sizeof(int32_t));
    else
        memcpy(field, &v, sizeof v);
    return 1;
}

static int from_environment(serve_opts *o) {
    for (int i = 0; i < N_FLAGS; i++) {
        char        name[64] = "RERANK_";
        const char *text;
        size_t      n = strlen(name);

        if (flags[i].kind == TITLE)
            continue;
        for (const char *p = flags[i].name; *p && n + 1 < sizeof name; p++)
            name[n++] = (char)(*p == '-' ? '_' : *p >= 'a' ? *p - 'a' + 'A' : *p);
        name[n] = '\0';
        text = getenv(name);
        if (text && *text && !set(o, &flags[i], text, name))
            return 0;
    }
    return 1;
}

/* "--name value", "--name=value", and -m. */
static int from_arguments(serve_opts *o, int argc, char **argv) {
    for (int a = 1; a < argc; a++) {
        const char *name = strcmp(argv[a], "-m") == 0 ? "--model" : argv[a], *eq, *text;
        size_t      len;
        int         i = 0;

        eq = strchr(name, '=');
        len = strncmp(name, "--", 2) == 0 ? (eq ? (size_t)(eq - name) : strlen(name)) - 2 : 0;
        while (i < N_FLAGS && (flags[i].kind == TITLE || len == 0 || strlen(flags[i].name) != len ||
                               strncmp(flags[i].name, name + 2, len) != 0))
            i++;
        if (i == N_FLAGS) {
            fprintf(stderr, "rerank serve: unknown option %s (see rerank serve --help)\n", name);
            return 0;
        }
        text = eq ? eq + 1 : a + 1 < argc ? argv[++a] : NULL;
        if (!text) {
            fprintf(stderr, "rerank serve: --%s needs a value\n", flags[i].name);
            return 0;
        }
        if (!set(o, &flags[i], text, name))
            return 0;
    }
    return 1;
}

static int finish(serve_opts *o) {
    static const char *const policies[] = {"only_second", "longest_first", "error"};
    int                      p = 0;

    while (o->truncation && p < 3 && strcmp(o->truncation, policies[p]) != 0)
        p++;
    if (p == 3 || (o->side && strcmp(o->side, "left") != 0 && strcmp(o->side, "right") != 0)) {
        fprintf(stderr, "rerank serve: --truncation is only_second, longest_first or error, "
                        "--truncation-side is right or left\n");
        return 0;
    }
    if (o->truncation)
        o->engine.truncation = (rr_truncation)(RR_TRUNC_ONLY_SECOND + p);
    if (o->side && o->side[0] == 'l')
        o->engine.side = RR_SIDE_LEFT;
    o->server.refuse_long = o->engine.truncation == RR_TRUNC_ERROR;
    o->server.max_length = o->engine.max_length;
    return 1;
}

static int fail(const rr_error *err) {
    fprintf(stderr, "rerank serve: %s\n", err->text);
    return EXIT_FAILED;
}

int cmd_serve(int argc, char **argv) {
    serve_opts     o = {.server.port = 8787};
    rr_model      *model = NULL;
    rr_engine     *engine = NULL;
    rr__server    *server = NULL;
    rr_engine_info info;
    rr_error       err;
    int            rc = EXIT_OK;

    for (int a = 1; a < argc; a++)
        if (strcmp(argv[a], "--help") == 0 || strcmp(argv[a], "-h") == 0) {
            usage(stdout);
            return EXIT_OK;
        }
    if (!from_environment(&o) || !from_arguments(&o, argc, argv) || !finish(&o))
        return EXIT_USAGE;
    o.model = cli_model_dir(&(cli_common){.model = o.model});
    rr__server_block_signals(); /* before any thread starts */
    if (rr_model_open(o.model, &model, &err) || rr_engine_open(model, &o.engine, &engine, &err) ||
        rr__server_open(&o.server, model, engine, &server, &err)) {
        rc = fail(&err);
        goto done;
    }
    rr_engine_describe(engine, &info);
    printf("%s  %s on %s, %s\n", rr__server_address(server), o.model, info.device, info.precision);
    fflush(stdout);
    if (!rr__server_run(server))
        _Exit(EXIT_FAILED); /* something hangs in the engine: closing it would hang too */
done:
    rr__server_close(server);
    rr_engine_close(engine);
    rr_model_close(model);
    return rc;
}
