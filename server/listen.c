/* listen.c - the socket that clients come to: made here, inherited, or handed to the next program.
 *
 * Inherited is what systemd's protocol hands over (sd_listen_fds(3)): LISTEN_PID is this process,
 * LISTEN_FDS counts descriptors from 3 on, of which the first is taken. rr__server_renew speaks it
 * to the program that takes this one's place. */
#define _GNU_SOURCE /* close_range; struct sockaddr_un, getaddrinfo and SOCK_CLOEXEC need less */
#include "server/request.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024, FIRST_FD = 3 };

static rr_status listen_unix(const char *path, int *out, rr_error *err) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat        st;
    int                fd;

    if (strlen(path) >= sizeof a.sun_path)
        return rr__fail(err, RR_E_ARG, "%s: a socket path has at most %zu bytes", path,
                        sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, strlen(path) + 1);
    if (stat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path); /* of an earlier run */
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, BACKLOG) != 0) {
        int e = errno;

        if (fd >= 0)
            close(fd);
        return rr__fail(err, RR_E_IO, "listen on %s: %s", path, strerror(e));
    }
    *out = fd;
    return RR_OK;
}

static rr_status listen_tcp(const char *host, int port, int *out, rr_error *err) {
    struct addrinfo  hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char             text[16];
    int              rc, fd = -1, one = 1, e = 0;

    snprintf(text, sizeof text, "%d", port);
    rc = getaddrinfo(host, text, &hints, &list);
    if (rc != 0)
        return rr__fail(err, RR_E_IO, "%s: %s", host, gai_strerror(rc));
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
        if (fd < 0) {
            e = errno;
            continue;
        }
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
            e = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        return rr__fail(err, RR_E_IO, "listen on %s port %d: %s", host, port, strerror(e));
    *out = fd;
    return RR_OK;
}

static long number(const char *variable) {
    const char *text = getenv(variable);

    return text ? strtol(text, NULL, 10) : 0;
}

/* *out stays -1 where nothing is inherited. */
static rr_status inherit(int *out, rr_error *err) {
    const long pid = number("LISTEN_PID"), count = number("LISTEN_FDS");
    int        listens = 0;
    socklen_t  len = sizeof listens;

    if (pid != (long)getpid() || count < 1)
        return RR_OK;
    unsetenv("LISTEN_PID"); /* not for children */
    unsetenv("LISTEN_FDS");
    if (getsockopt(FIRST_FD, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0 || !listens)
        return rr__fail(err, RR_E_IO, "LISTEN_FDS: descriptor %d is no listening socket", FIRST_FD);
    if (fcntl(FIRST_FD, F_SETFD, FD_CLOEXEC) != 0 ||
        fcntl(FIRST_FD, F_SETFL, fcntl(FIRST_FD, F_GETFL) | O_NONBLOCK) != 0)
        return rr__fail(err, RR_E_IO, "LISTEN_FDS: %s", strerror(errno));
    *out = FIRST_FD;
    return RR_OK;
}

rr_status rr__listen(const rr__server_opts *o, int *out, rr_error *err) {
    rr_status s = inherit(out, err);

    if (s != RR_OK || *out >= 0)
        return s;
    return o->unix_path ? listen_unix(o->unix_path, out, err)
                        : listen_tcp(o->host, o->port, out, err);
}

char *rr__listen_address(int fd, int tls) {
    struct sockaddr_storage a = {0};
    socklen_t               len = sizeof a;
    char                    host[128], port[16], text[256];

    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        return NULL;
    if (a.ss_family == AF_UNIX)
        snprintf(text, sizeof text, "unix:%s", ((struct sockaddr_un *)&a)->sun_path);
    else if (getnameinfo((struct sockaddr *)&a, len, host, sizeof host, port, sizeof port,
                         NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(text, sizeof text, strchr(host, ':') ? "%s://[%s]:%s" : "%s://%s:%s",
                 tls ? "https" : "http", host, port);
    else
        return NULL;
    return strdup(text);
}

rr_status rr__listen_hand_over(int fd, const char *program, char **argv, rr_error *err) {
    char pid[16];

    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (setenv("LISTEN_PID", pid, 1) != 0 || setenv("LISTEN_FDS", "1", 1) != 0 ||
        (fd != FIRST_FD ? dup2(fd, FIRST_FD) : fcntl(fd, F_SETFD, 0)) < 0)
        return rr__fail(err, RR_E_IO, "start anew: %s", strerror(errno));
    /* A device library may have files open that would keep a lost device's memory. */
    close_range(FIRST_FD + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    execv(program, argv);
    execv("/proc/self/exe", argv); /* where the program's file has gone */
    return rr__fail(err, RR_E_IO, "start %s anew: %s", program, strerror(errno));
}
