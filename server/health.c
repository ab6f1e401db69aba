/* health.c - /health means it: a thread scores a pair with a known answer through every instance,
 * again and again; /health tells how the last try ended, and that it ended in time. */
#include "server/info.h"
#include "server/request.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct rr__health {
    rr__server     *server;
    pthread_mutex_t lock;
    pthread_cond_t  wake;
    int             closing, ok;
    int64_t         since_us; /* when the last try ended */
    int64_t         lost_us;  /* since when no instance works; 0 = one does */
    int             renewing; /* the signal was sent */
    char            why[248];
    pthread_t       thread;
};

/* Sleep until the next try or until closing; the lock is held. */
static void nap(struct rr__health *h, int ms) {
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (!h->closing && pthread_cond_timedwait(&h->wake, &h->lock, &until) != ETIMEDOUT)
        ;
}

/* Where no instance has worked for renew_after_s, only a new process helps: CUDA serves none after a
 * kernel's fault, and a call that hangs never comes back. */
static void renew_if_lost(struct rr__health *h) {
    rr__server *s = h->server;
    rr_stats    stats;

    rr_engine_stats(s->engine, &stats);
    if (stats.instances_ok > 0 || s->o.renew_after_s < 0)
        h->lost_us = 0;
    else if (h->lost_us == 0)
        h->lost_us = rr_now_us();
    else if (!h->renewing && rr_now_us() - h->lost_us >= (int64_t)s->o.renew_after_s * 1000000) {
        h->renewing = 1;
        rr__log_event(s->log, "error", "no instance works: starting anew");
        kill(getpid(), SIGUSR1);
    }
}

static void *health_main(void *arg) {
    struct rr__health *h = arg;
    rr__server        *s = h->server;

    pthread_mutex_lock(&h->lock);
    while (!h->closing) {
        rr_error err = {RR_OK, ""};
        int      ok, changed;

        pthread_mutex_unlock(&h->lock);
        ok = rr_engine_check(s->engine, (int64_t)s->o.health_timeout_ms * 1000, &err) == RR_OK;
        pthread_mutex_lock(&h->lock);
        changed = h->ok != ok;
        h->ok = ok;
        h->since_us = rr_now_us();
        snprintf(h->why, sizeof h->why, "%s", ok ? "" : err.text);
        if (changed)
            rr__log_event(s->log, ok ? "info" : "error", ok ? "healthy again" : h->why);
        renew_if_lost(h);
        nap(h, s->o.health_every_ms);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

rr_status rr__health_open(rr__server *s, rr_error *err) {
    struct rr__health *h = calloc(1, sizeof *h);
    int                rc;

    if (!h)
        return rr__fail(err, RR_E_NOMEM, "health: out of memory");
    h->server = s;
    h->ok = 1; /* the engine checked itself when it was opened */
    h->since_us = rr_now_us();
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->wake, NULL);
    rc = pthread_create(&h->thread, NULL, health_main, h);
    if (rc != 0) {
        free(h);
        return rr__fail(err, RR_E_NOMEM, "health thread: %s", strerror(rc));
    }
    s->health = h;
    return RR_OK;
}

void rr__health_close(struct rr__health *h) {
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->closing = 1;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int rr__health_ok(struct rr__health *h, char *why, size_t cap) {
    const rr__server_opts *o = &h->server->o;
    int64_t                most = (int64_t)(o->health_every_ms + 2 * o->health_timeout_ms) * 1000;
    int                    ok;

    pthread_mutex_lock(&h->lock);
    ok = h->ok;
    snprintf(why, cap, "%s", h->why);
    if (ok && rr_now_us() - h->since_us > most) {
        ok = 0;
        snprintf(why, cap, "the engine did not answer a check for %lld ms",
                 (long long)((rr_now_us() - h->since_us) / 1000));
    }
    pthread_mutex_unlock(&h->lock);
    return ok;
}

void rr__get_health(rr__request *r) {
    char why[256];

    if (!rr__health_ok(r->server->health, why, sizeof why))
        rr__problem_set(r, RR__P_UNAVAILABLE, "%s", why);
}

void rr__get_ready(rr__request *r) {
    if (atomic_load(&r->server->draining))
        rr__problem_set(r, RR__P_UNAVAILABLE, "shutting down");
    else
        rr__get_health(r);
}
