/* keys.c - API keys from a file, one a line, '#' starts a comment; read again on SIGHUP.
 *
 * A key is compared with all keys, over the full width, so that the time says nothing about how
 * much of it was right. A file that cannot be read again leaves the old keys in force. */
#include "base/file.h"
#include "server/request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { KEY_CAP = 256 };

typedef struct key {
    unsigned char bytes[KEY_CAP]; /* zeros behind the end */
} key;

struct rr__keys {
    const char      *path;
    pthread_rwlock_t lock;
    key             *keys; /* [n] */
    size_t           n;
};

static rr_status read_keys(const char *path, key **out, size_t *n_out, rr_error *err) {
    rr__file    f;
    const char *p, *end;
    key        *keys;
    size_t      n = 0, lines = 1;
    rr_status   s = rr__file_map(path, &f, err);

    if (s != RR_OK)
        return s;
    p = f.ptr;
    end = p + f.size;
    for (size_t i = 0; i < f.size; i++)
        lines += p[i] == '\n';
    keys = calloc(lines, sizeof *keys);
    if (!keys)
        s = rr__fail(err, RR_E_NOMEM, "%s: out of memory", path);
    for (int line = 1; s == RR_OK && p < end; line++) {
        const char *eol = memchr(p, '\n', (size_t)(end - p)), *e = eol ? eol : end;

        while (p < e && strchr(" \t\r", e[-1]))
            e--;
        while (p < e && strchr(" \t", *p))
            p++;
        if (e - p > KEY_CAP)
            s = rr__fail(err, RR_E_FORMAT, "%s: line %d: a key has at most %d bytes", path, line,
                         KEY_CAP);
        else if (p < e && *p != '#')
            memcpy(keys[n++].bytes, p, (size_t)(e - p));
        p = eol ? eol + 1 : end;
    }
    if (s == RR_OK && n == 0)
        s = rr__fail(err, RR_E_FORMAT, "%s: no key in it", path);
    rr__file_unmap(&f);
    if (s != RR_OK) {
        free(keys);
        return s;
    }
    *out = keys;
    *n_out = n;
    return RR_OK;
}

rr_status rr__keys_open(const char *path, struct rr__keys **out, rr_error *err) {
    struct rr__keys *k = calloc(1, sizeof *k);
    rr_status        s;

    if (!k)
        return rr__fail(err, RR_E_NOMEM, "%s: out of memory", path);
    k->path = path;
    pthread_rwlock_init(&k->lock, NULL);
    s = read_keys(path, &k->keys, &k->n, err);
    if (s != RR_OK) {
        rr__keys_close(k);
        return s;
    }
    *out = k;
    return RR_OK;
}

rr_status rr__keys_reload(struct rr__keys *k, rr_error *err) {
    key      *keys = NULL, *old;
    size_t    n = 0;
    rr_status s = read_keys(k->path, &keys, &n, err);

    if (s != RR_OK)
        return s;
    pthread_rwlock_wrlock(&k->lock);
    old = k->keys;
    k->keys = keys;
    k->n = n;
    pthread_rwlock_unlock(&k->lock);
    free(old);
    return RR_OK;
}

void rr__keys_close(struct rr__keys *k) {
    if (!k)
        return;
    pthread_rwlock_destroy(&k->lock);
    free(k->keys);
    free(k);
}

static int allowed(struct rr__keys *k, const char *text) {
    unsigned char given[KEY_CAP] = {0};
    size_t        len = text ? strlen(text) : 0;
    int           any = 0;

    if (len == 0 || len > KEY_CAP)
        return 0;
    memcpy(given, text, len);
    pthread_rwlock_rdlock(&k->lock);
    for (size_t i = 0; i < k->n; i++) {
        unsigned diff = 0;

        for (size_t b = 0; b < KEY_CAP; b++)
            diff |= (unsigned)(given[b] ^ k->keys[i].bytes[b]);
        any |= diff == 0;
    }
    pthread_rwlock_unlock(&k->lock);
    return any;
}

int rr__keys_allow(struct rr__keys *k, const char *authorization, const char *x_api_key) {
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0)
        authorization += 7; /* LlamaIndex sends the bare key, most others "Bearer KEY" */
    return allowed(k, authorization) | allowed(k, x_api_key);
}
