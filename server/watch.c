/* watch.c - one thread that knows every connection: it sees clients leave, and cuts connections that
 * exceed the time of their phase.
 *
 * libmicrohttpd alone does neither: it looks at no socket while a request is with the engine, its
 * edge-triggered epoll misses an end that came together with data, and its timeout starts anew
 * with every byte. A client that closes its sending side has left: its job is canceled, or its
 * connection cut with shutdown(2), upon which its I/O thread closes it. The lock is held while a job
 * is canceled, so that it cannot be freed meanwhile. */
#define _GNU_SOURCE /* EPOLLRDHUP */
#include "server/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TICK_MS = 250, EVENTS = 64 };

struct rr__watch {
    rr__server     *server;
    pthread_mutex_t lock;
    rr__conn       *conns; /* doubly linked */
    rr__conn      **by_fd; /* [cap] */
    int             cap, n, epoll;
    uint32_t        turn;
    atomic_int      closing;
    pthread_t       thread;
};

static int64_t time_for(const rr__server_opts *o, rr__phase phase) {
    static const int64_t us = 1000000;

    switch (phase) {
    case RR__IDLE:
        return o->idle_timeout_s * us;
    case RR__HEADER:
        return o->header_timeout_s * us;
    case RR__BODY:
        return o->body_timeout_s * us;
    case RR__WRITE:
        return o->write_timeout_s * us;
    case RR__ENGINE:
        break; /* bounded by deadlines and the engine, not by the client */
    }
    return 0;
}

static void cut_slow(struct rr__watch *w) {
    static const struct linger reset = {1, 0}; /* what is not taken yet is not kept for it */
    int64_t                    now = rr_now_us();

    pthread_mutex_lock(&w->lock);
    for (rr__conn *c = w->conns; c; c = c->next)
        if (c->deadline_us && now > c->deadline_us) {
            c->deadline_us = 0;
            setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            shutdown(c->fd, SHUT_RDWR);
        }
    pthread_mutex_unlock(&w->lock);
}

static void client_left(struct rr__watch *w, uint64_t key) {
    int       fd = (int)(key & 0x7fffffff);
    rr__conn *c;

    pthread_mutex_lock(&w->lock);
    c = fd < w->cap ? w->by_fd[fd] : NULL;
    if (c && c->turn == (uint32_t)(key >> 32)) {
        c->left = 1;
        if (c->job)
            rr_cancel(c->job);
        else
            shutdown(fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&w->lock);
}

static void *watch_main(void *arg) {
    struct rr__watch  *w = arg;
    struct epoll_event ev[EVENTS];
    int64_t            last = 0;

    while (!atomic_load(&w->closing)) {
        int n = epoll_wait(w->epoll, ev, EVENTS, TICK_MS);

        for (int i = 0; i < n; i++)
            client_left(w, ev[i].data.u64);
        if (rr_now_us() - last > TICK_MS * 1000) {
            cut_slow(w);
            last = rr_now_us();
        }
    }
    return NULL;
}

rr_status rr__watch_open(rr__server *s, rr_error *err) {
    struct rr__watch *w = calloc(1, sizeof *w);
    int               rc;

    if (!w)
        return rr__fail(err, RR_E_NOMEM, "watch: out of memory");
    w->server = s;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0) {
        free(w);
        return rr__fail(err, RR_E_IO, "epoll: %s", strerror(errno));
    }
    pthread_mutex_init(&w->lock, NULL);
    rc = pthread_create(&w->thread, NULL, watch_main, w);
    if (rc != 0) {
        close(w->epoll);
        free(w);
        return rr__fail(err, RR_E_NOMEM, "watch thread: %s", strerror(rc));
    }
    s->watch = w;
    return RR_OK;
}

void rr__watch_close(struct rr__watch *w) {
    if (!w)
        return;
    atomic_store(&w->closing, 1);
    pthread_join(w->thread, NULL);
    close(w->epoll);
    pthread_mutex_destroy(&w->lock);
    free(w->by_fd);
    free(w);
}

/* Room for fd in by_fd; the lock is held. */
static int make_room(struct rr__watch *w, int fd) {
    int        cap = fd < 1024 ? 1024 : fd * 2;
    rr__conn **more;

    if (fd < w->cap)
        return 1;
    more = realloc(w->by_fd, (size_t)cap * sizeof(rr__conn *));
    if (!more)
        return 0;
    memset(more + w->cap, 0, (size_t)(cap - w->cap) * sizeof(rr__conn *));
    w->by_fd = more;
    w->cap = cap;
    return 1;
}

rr__conn *rr__watch_connect(struct rr__watch *w, int fd) {
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET};
    rr__conn          *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    pthread_mutex_lock(&w->lock);
    if (!make_room(w, fd)) {
        pthread_mutex_unlock(&w->lock);
        free(c);
        return NULL;
    }
    c->fd = fd;
    c->deadline_us = rr_now_us() + time_for(&w->server->o, RR__IDLE);
    c->turn = ++w->turn;
    c->next = w->conns;
    if (c->next)
        c->next->prev = c;
    w->conns = c;
    w->by_fd[fd] = c;
    w->n++;
    ev.data.u64 = (uint64_t)c->turn << 32 | (uint32_t)fd;
    epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev);
    pthread_mutex_unlock(&w->lock);
    return c;
}

void rr__watch_disconnect(struct rr__watch *w, rr__conn *c) {
    if (!c)
        return;
    pthread_mutex_lock(&w->lock);
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, c->fd, NULL);
    w->by_fd[c->fd] = NULL;
    if (c->prev)
        c->prev->next = c->next;
    else
        w->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    w->n--;
    pthread_mutex_unlock(&w->lock);
    free(c);
}

void rr__watch_phase(struct rr__watch *w, rr__conn *c, rr__phase phase) {
    int64_t us = time_for(&w->server->o, phase), now = rr_now_us();

    pthread_mutex_lock(&w->lock);
    c->deadline_us = us ? now + us : 0;
    if (phase == RR__HEADER)
        c->header_us = now;
    if (phase == RR__IDLE && c->left) /* the answer went into the kernel's buffer all the same */
        shutdown(c->fd, SHUT_RDWR);
    pthread_mutex_unlock(&w->lock);
}

void rr__watch_job(struct rr__watch *w, rr__conn *c, rr_job *job) {
    pthread_mutex_lock(&w->lock);
    c->job = job;
    if (job && c->left)
        rr_cancel(job);
    pthread_mutex_unlock(&w->lock);
}

void rr__watch_cancel_all(struct rr__watch *w) {
    pthread_mutex_lock(&w->lock);
    for (rr__conn *c = w->conns; c; c = c->next)
        if (c->job)
            rr_cancel(c->job);
    pthread_mutex_unlock(&w->lock);
}

int rr__watch_connections(struct rr__watch *w) {
    int n;

    pthread_mutex_lock(&w->lock);
    n = w->n;
    pthread_mutex_unlock(&w->lock);
    return n;
}
