/* server.c - opening, running and draining the server; see server.h. */
#define _DEFAULT_SOURCE /* sigwait, nanosleep */
#include "base/file.h"
#include "base/pool.h"
#include "server/request.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINGER_MS = 250 };

/* ---- open ------------------------------------------------------------------------------------ */

#define DEFAULT(field, value) o->field = o->field ? o->field : (value)

static void set_defaults(rr__server_opts *o) {
    int cores = rr__cores();

    DEFAULT(host, "127.0.0.1");
    DEFAULT(max_body, (int64_t)64 << 20);
    DEFAULT(max_buffered, (int64_t)1 << 30);
    DEFAULT(max_docs, 16384);
    DEFAULT(max_conns, 4096);
    DEFAULT(io_threads, cores < 4 ? 1 : cores < 8 ? 2 : 4);
    DEFAULT(workers, cores < 2 ? 2 : cores < 8 ? cores : 8);
    DEFAULT(header_timeout_s, 10);
    DEFAULT(body_timeout_s, 60);
    DEFAULT(write_timeout_s, 60);
    DEFAULT(idle_timeout_s, 75);
    DEFAULT(drain_timeout_s, 30);
    DEFAULT(health_every_ms, 5000);
    DEFAULT(health_timeout_ms, 30000); /* a starved CPU is slow, not hung */
    DEFAULT(renew_after_s, 10);
}

/* A connection is a file descriptor: ask for as many as the limit needs. */
static void raise_nofile(int conns) {
    struct rlimit lim;
    rlim_t        want = (rlim_t)conns + 128;

    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < want) {
        lim.rlim_cur = lim.rlim_max < want ? lim.rlim_max : want;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
}

static rr_status read_text(const char *path, char **out, rr_error *err) {
    rr__file  f;
    rr_status s = rr__file_map(path, &f, err);

    if (s != RR_OK)
        return s;
    *out = calloc(1, f.size + 1);
    if (*out && f.size)
        memcpy(*out, f.ptr, f.size);
    rr__file_unmap(&f);
    return *out ? RR_OK : rr__fail(err, RR_E_NOMEM, "%s: out of memory", path);
}

static const char *last_part(const char *dir) {
    const char *slash = strrchr(dir, '/');

    return slash && slash[1] ? slash + 1 : dir;
}

rr_status rr__server_open(const rr__server_opts *opts, rr_model *model, rr_engine *engine,
                          rr__server **out, rr_error *err) {
    rr__server *s = calloc(1, sizeof *s);
    rr_status   rc;
    int         fd = -1;

    if (!s)
        return rr__fail(err, RR_E_NOMEM, "server: out of memory");
    s->quiesced = -1;
    s->o = *opts;
    s->model = model;
    s->engine = engine;
    set_defaults(&s->o);
    raise_nofile(s->o.max_conns);
    rr_model_describe(model, &s->model_info);
    rr_engine_describe(engine, &s->engine_info);
    s->model_name = s->o.model_name ? s->o.model_name : last_part(s->model_info.dir);
    if ((s->o.tls_cert != NULL) != (s->o.tls_key != NULL)) {
        rc = rr__fail(err, RR_E_ARG, "TLS needs a certificate and a key");
        goto fail;
    }
    if ((s->o.tls_cert && ((rc = read_text(s->o.tls_cert, &s->pem_cert, err)) != RR_OK ||
                           (rc = read_text(s->o.tls_key, &s->pem_key, err)) != RR_OK)) ||
        (s->o.keys_path && (rc = rr__keys_open(s->o.keys_path, &s->keys, err)) != RR_OK) ||
        (rc = rr__listen(&s->o, &fd, err)) != RR_OK ||
        (rc = rr__log_open(s->o.log_path, &s->log, err)) != RR_OK ||
        (rc = rr__metrics_open(&s->metrics, err)) != RR_OK ||
        (rc = rr__watch_open(s, err)) != RR_OK || (rc = rr__health_open(s, err)) != RR_OK ||
        (rc = rr__workers_open(s->o.workers, &s->workers, err)) != RR_OK)
        goto fail;
    s->address = rr__listen_address(fd, s->pem_cert != NULL);
    rc = s->address ? rr__http_start(s, fd, err) : rr__fail(err, RR_E_IO, "socket has no name");
    if (rc != RR_OK)
        goto fail;
    *out = s;
    return RR_OK;
fail:
    if (fd >= 0)
        close(fd);
    rr__server_close(s);
    return rc;
}

const char *rr__server_address(const rr__server *s) {
    return s->address;
}

void rr__server_close(rr__server *s) {
    if (!s)
        return;
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    if (s->quiesced >= 0)
        close(s->quiesced);
    if (s->daemon && s->o.unix_path)
        unlink(s->o.unix_path);
    rr__workers_close(s->workers);
    rr__health_close(s->health);
    rr__watch_close(s->watch);
    rr__log_close(s->log);
    rr__metrics_close(s->metrics);
    rr__keys_close(s->keys);
    free(s->pem_cert);
    free(s->pem_key);
    free(s->address);
    free(s);
}

/* ---- run and drain --------------------------------------------------------------------------- */

static void signal_set(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
}

void rr__server_block_signals(void) {
    sigset_t set;

    signal_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void reload(rr__server *s) {
    rr_error err;

    if (!s->keys)
        return;
    if (rr__keys_reload(s->keys, &err) == RR_OK)
        rr__log_event(s->log, "info", "API keys read again");
    else
        rr__log_event(s->log, "error", err.text);
}

static void sleep_ms(int ms) {
    struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};

    nanosleep(&ts, NULL);
}

/* Wait until nothing has been under way for LINGER_MS, for that time at most. */
static int wait_idle(rr__server *s, int64_t most_ms) {
    int64_t start = rr_now_us(), busy = start;

    for (;;) {
        int64_t now = rr_now_us();

        if (atomic_load(&s->n_requests) > 0)
            busy = now;
        if (now - busy > LINGER_MS * 1000)
            return 1;
        if (now - start > most_ms * 1000)
            return 0;
        sleep_ms(10);
    }
}

static int drain(rr__server *s, int renew) {
    int all;

    atomic_store(&s->draining, 1);
    rr__log_event(s->log, "info", renew ? "draining, to start anew" : "draining");
    if (!renew)
        sleep_ms(s->o.drain_delay_ms); /* balancers see /ready and look elsewhere */
    /* The I/O thread may be about to take the socket out of its epoll set: were it closed here, its
     * number could belong to another file by then. Shut, it takes no connection either. For a new
     * program it goes on taking them; nobody answers until that does. */
    s->quiesced = MHD_quiesce_daemon(s->daemon);
    if (s->quiesced >= 0 && !renew)
        shutdown(s->quiesced, SHUT_RDWR);
    all = wait_idle(s, (int64_t)s->o.drain_timeout_s * 1000);
    if (!all) {
        rr__log_event(s->log, "error", "drain timeout: canceling what is left");
        rr__watch_cancel_all(s->watch);
        all = wait_idle(s, 2000);
    }
    rr__log_event(s->log, "info", all ? "drained" : "requests are stuck in the engine");
    return all;
}

rr_status rr__server_renew(rr__server *s, const char *program, char **argv, rr_error *err) {
    rr__log_flush(s->log);
    return rr__listen_hand_over(s->quiesced, program, argv, err);
}

rr__run_end rr__server_run(rr__server *s) {
    sigset_t set;
    int      sig = 0, all;

    signal_set(&set);
    while (sigwait(&set, &sig) == 0 && sig == SIGHUP)
        reload(s);
    all = drain(s, sig == SIGUSR1);
    return sig == SIGUSR1 ? RR__RUN_RENEW : all ? RR__RUN_DRAINED : RR__RUN_STUCK;
}
