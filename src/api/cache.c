/* cache.c - see cache.h. */
#include "api/cache.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHARDS = 16,
    OVERHEAD = 24, /* units an entry is charged beside its content */
    LARGEST = 16   /* one entry may take this fraction of a shard  */
};

typedef struct entry {
    struct entry *next;          /* in its bucket        */
    struct entry *older, *newer; /* ring of the CLOCK    */
    uint64_t      hash;
    size_t        len, n; /* bytes of the document, ids */
    int           hit;    /* since the hand last passed */
    int32_t       id[];   /* [n], then the bytes        */
} entry;

typedef struct shard {
    pthread_mutex_t lock;
    entry         **bucket; /* [n_bucket] a power of two */
    size_t          n_bucket, n_entry;
    entry          *hand;       /* oldest, the next to be looked at; a ring through newer */
    int64_t         used, most; /* units */
    uint64_t        hits, misses;
} shard;

struct rr__cache {
    uint64_t seed; /* so that nobody can aim at one bucket */
    shard    shards[SHARDS];
};

/* Multiply and fold 8 bytes at a time: quick, and even enough for a table that compares. */
static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t hash_of(uint64_t seed, rr_str doc) {
    uint64_t h = mix(seed, doc.len), v;
    size_t   i = 0;

    for (; i + 8 <= doc.len; i += 8) {
        memcpy(&v, doc.ptr + i, 8);
        h = mix(h, v);
    }
    v = 0;
    if (i < doc.len)
        memcpy(&v, doc.ptr + i, doc.len - i);
    return mix(mix(h, v), seed);
}

static int64_t units(size_t len, size_t n) {
    return (int64_t)(n + len / 4) + OVERHEAD;
}

rr_status rr__cache_open(int64_t tokens, rr__cache **out, rr_error *err) {
    rr__cache *c = calloc(1, sizeof *c);

    if (!c)
        return rr__fail(err, RR_E_NOMEM, "document cache: out of memory");
    c->seed = (uint64_t)rr__now_ns() ^ (uint64_t)(uintptr_t)c << 20;
    for (int i = 0; i < SHARDS; i++) {
        shard *s = &c->shards[i];

        pthread_mutex_init(&s->lock, NULL);
        s->most = tokens / SHARDS;
        s->n_bucket = 64;
        while (s->n_bucket < (size_t)(s->most / 128)) /* about one entry each when full */
            s->n_bucket *= 2;
        s->bucket = calloc(s->n_bucket, sizeof(entry *));
        if (!s->bucket) {
            rr__cache_close(c);
            return rr__fail(err, RR_E_NOMEM, "document cache of %lld tokens: out of memory",
                            (long long)tokens);
        }
    }
    *out = c;
    return RR_OK;
}

void rr__cache_close(rr__cache *c) {
    if (!c)
        return;
    for (int i = 0; i < SHARDS; i++) {
        shard *s = &c->shards[i];

        for (size_t b = 0; s->bucket && b < s->n_bucket; b++)
            for (entry *e = s->bucket[b], *next; e; e = next) {
                next = e->next;
                free(e);
            }
        free(s->bucket);
        if (s->most > 0 || s->bucket)
            pthread_mutex_destroy(&s->lock);
    }
    free(c);
}

static shard *shard_of(rr__cache *c, uint64_t hash) {
    return &c->shards[hash >> 60];
}

/* The place that points to the document's entry, or the end of its chain. */
static entry **find(shard *s, uint64_t hash, rr_str doc) {
    entry **at = &s->bucket[hash & (s->n_bucket - 1)];

    for (; *at; at = &(*at)->next)
        if ((*at)->hash == hash && (*at)->len == doc.len &&
            (doc.len == 0 || memcmp((*at)->id + (*at)->n, doc.ptr, doc.len) == 0))
            break;
    return at;
}

static int append(rr__ids *out, const int32_t *id, size_t n) {
    if (out->cap - out->n < n) {
        size_t   cap = out->n + n + out->cap / 2;
        int32_t *grown = realloc(out->id, cap * sizeof *grown);

        if (!grown)
            return 0;
        out->id = grown;
        out->cap = cap;
    }
    if (n > 0)
        memcpy(out->id + out->n, id, n * sizeof *id);
    out->n += n;
    return 1;
}

int rr__cache_get(rr__cache *c, rr_str doc, rr__ids *out) {
    uint64_t hash = hash_of(c->seed, doc);
    shard   *s = shard_of(c, hash);
    entry   *e;
    int      hit;

    pthread_mutex_lock(&s->lock);
    e = *find(s, hash, doc);
    hit = e && append(out, e->id, e->n);
    if (hit)
        e->hit = 1;
    s->hits += (uint64_t)hit;
    s->misses += (uint64_t)!hit;
    pthread_mutex_unlock(&s->lock);
    return hit;
}

/* Take the oldest entry out unless it was hit; then it gets another round. */
static void turn_hand(shard *s) {
    entry *e = s->hand;

    s->hand = e->newer;
    if (e->hit) {
        e->hit = 0;
        return;
    }
    for (entry **at = &s->bucket[e->hash & (s->n_bucket - 1)]; *at; at = &(*at)->next)
        if (*at == e) {
            *at = e->next;
            break;
        }
    e->older->newer = e->newer;
    e->newer->older = e->older;
    if (--s->n_entry == 0)
        s->hand = NULL;
    s->used -= units(e->len, e->n);
    free(e);
}

void rr__cache_put(rr__cache *c, rr_str doc, const int32_t *id, size_t n) {
    uint64_t hash = hash_of(c->seed, doc);
    shard   *s = shard_of(c, hash);
    entry   *e, **at;

    if (units(doc.len, n) > s->most / LARGEST)
        return;
    e = malloc(sizeof *e + n * sizeof *id + doc.len);
    if (!e)
        return;
    *e = (entry){.hash = hash, .len = doc.len, .n = n};
    if (n > 0)
        memcpy(e->id, id, n * sizeof *id);
    if (doc.len > 0)
        memcpy(e->id + n, doc.ptr, doc.len);
    pthread_mutex_lock(&s->lock);
    at = find(s, hash, doc);
    if (*at) { /* another thread was first */
        pthread_mutex_unlock(&s->lock);
        free(e);
        return;
    }
    *at = e;
    if (s->hand) { /* newest: just behind the hand */
        e->newer = s->hand;
        e->older = s->hand->older;
        e->older->newer = e->newer->older = e;
    } else {
        s->hand = e->newer = e->older = e;
    }
    s->n_entry++;
    s->used += units(doc.len, n);
    while (s->used > s->most)
        turn_hand(s);
    pthread_mutex_unlock(&s->lock);
}

void rr__cache_counts(rr__cache *c, uint64_t *hits, uint64_t *misses) {
    *hits = *misses = 0;
    for (int i = 0; c && i < SHARDS; i++) {
        shard *s = &c->shards[i];

        pthread_mutex_lock(&s->lock);
        *hits += s->hits;
        *misses += s->misses;
        pthread_mutex_unlock(&s->lock);
    }
}
