/* safetensors.c - see safetensors.h. */
#include "model/safetensors.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HEADER = 100000000, MAX_SHARDS = 1000 }; /* the library's limit; far above any model */

static const struct {
    const char *name;
    size_t      size;
} dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2},    {"F64", 8},     {"I64", 8},
              {"I32", 4}, {"I16", 2}, {"I8", 1},      {"U64", 8},     {"U32", 4},
              {"U16", 2}, {"U8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}};

/* A header entry before its bytes are known to be there. */
typedef struct entry {
    rr__st_tensor t;
    uint64_t      begin, end;
} entry;

typedef struct entries {
    entry *e;
    size_t n, cap;
} entries;

/* A name that is safe in a message: no control character, not endless. */
static const char *take_name(rr__json *j, rr__arena *a, rr_str s) {
    const char *name;

    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f) {
            rr__json_error(j, "control character in a name");
            return NULL;
        }
    if (s.len == 0 || s.len > RR__ST_NAME) {
        rr__json_error(j, "a name of 0 or more than 256 bytes");
        return NULL;
    }
    name = rr__arena_strndup(a, s.ptr, s.len);
    if (!name)
        rr__json_error(j, "out of memory");
    return name;
}

/* ---- one tensor ----------------------------------------------------------- */

static int read_shape(rr__json *j, rr__st_tensor *t) {
    int64_t v;

    t->rank = 0;
    for (rr__json_array(j); rr__json_next(j);) {
        if (!rr__json_i64(j, &v))
            return 0;
        if (v < 0)
            return rr__json_error(j, "negative size in a shape");
        if (t->rank == RR__ST_RANK)
            return rr__json_error(j, "more than 8 dimensions");
        t->shape[t->rank++] = v;
    }
    return !j->what;
}

static int read_offsets(rr__json *j, entry *e) {
    int64_t v[2];
    int     n = 0;

    for (rr__json_array(j); rr__json_next(j);) {
        if (n == 2)
            return rr__json_error(j, "data_offsets has more than two numbers");
        if (!rr__json_i64(j, &v[n++]))
            return 0;
    }
    if (j->what)
        return 0;
    if (n != 2 || v[0] < 0 || v[1] < v[0])
        return rr__json_error(j, "data_offsets must be two rising numbers");
    e->begin = (uint64_t)v[0];
    e->end = (uint64_t)v[1];
    return 1;
}

static int read_dtype(rr__json *j, rr__st_tensor *t) {
    rr_str s;

    if (!rr__json_string(j, &s))
        return 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (rr__json_eq(s, dtypes[i].name)) {
            memcpy(t->dtype, s.ptr, s.len);
            t->dtype[s.len] = '\0';
            return 1;
        }
    return rr__json_error(j, "unknown dtype");
}

static int read_entry(rr__json *j, entry *e) {
    int    seen = 0, bit;
    rr_str key;

    rr__json_object(j);
    while (rr__json_key(j, &key)) {
        if (rr__json_eq(key, "dtype"))
            bit = read_dtype(j, &e->t) << 0;
        else if (rr__json_eq(key, "shape"))
            bit = read_shape(j, &e->t) << 1;
        else if (rr__json_eq(key, "data_offsets"))
            bit = read_offsets(j, e) << 2;
        else
            return rr__json_error(j, "expected dtype, shape or data_offsets");
        if (seen & bit)
            return rr__json_error(j, "said twice");
        seen |= bit;
    }
    if (!j->what && seen != 7)
        return rr__json_error(j, "dtype, shape or data_offsets is missing");
    return !j->what;
}

/* Bytes that shape and dtype ask for; 0 if the product does not fit. */
static int tensor_bytes(const rr__st_tensor *t, uint64_t *out) {
    uint64_t n = 1;

    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(t->dtype, dtypes[i].name) == 0)
            n = dtypes[i].size;
    for (int32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0) {
            *out = 0;
            return 1;
        }
    for (int32_t i = 0; i < t->rank; i++) {
        if ((uint64_t)t->shape[i] > (uint64_t)INT64_MAX / n)
            return 0;
        n *= (uint64_t)t->shape[i];
    }
    *out = n;
    return 1;
}

/* ---- the file ------------------------------------------------------------- */

static int by_offset(const void *a, const void *b) {
    const entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const rr__st_tensor *)a)->name, ((const rr__st_tensor *)b)->name);
}

static entry *append(entries *all, rr__arena *a) {
    if (all->n == all->cap) {
        size_t cap = all->cap ? all->cap * 2 : 64;
        entry *e = rr__arena_calloc(a, cap, sizeof *e);

        if (!e)
            return NULL;
        if (all->n)
            memcpy(e, all->e, all->n * sizeof *e);
        all->e = e;
        all->cap = cap;
    }
    return &all->e[all->n++];
}

static rr_status read_header(const char *file, const void *ptr, size_t size, rr__arena *a,
                             entries *all, rr_error *err) {
    const char *tensor = NULL;
    rr__json    j;
    rr_str      key;

    rr__json_init(&j, ptr, size, a);
    rr__json_object(&j);
    while (rr__json_key(&j, &key)) {
        entry *e;

        tensor = NULL;
        if (rr__json_eq(key, "__metadata__")) {
            rr__json_skip(&j);
            continue;
        }
        tensor = take_name(&j, a, key);
        e = append(all, a);
        if (!e)
            return rr__fail(err, RR_E_NOMEM, "%s: out of memory", file);
        e->t.name = tensor;
        e->t.file = file;
        read_entry(&j, e);
    }
    if (rr__json_done(&j))
        return RR_OK;
    return rr__fail_prefix(err, rr__json_fail(&j, tensor ? tensor : "header", err), "%s", file);
}

/* Bytes against shape, inside the file, end to end without overlap or hole. */
static rr_status check_layout(const char *file, const unsigned char *data, uint64_t n_data,
                              entries *all, rr_error *err) {
    uint64_t at = 0, want;

    if (all->n > 0)
        qsort(all->e, all->n, sizeof *all->e, by_offset);
    for (size_t i = 0; i < all->n; i++) {
        entry             *e = &all->e[i];
        unsigned long long begin = e->begin, end = e->end;

        if (!tensor_bytes(&e->t, &want))
            return rr__fail(err, RR_E_FORMAT, "%s: %s: shape is too large", file, e->t.name);
        if (want != e->end - e->begin)
            return rr__fail(err, RR_E_FORMAT,
                            "%s: %s: shape and %s need %llu bytes, offsets give %llu", file,
                            e->t.name, e->t.dtype, (unsigned long long)want, end - begin);
        if (e->end > n_data)
            return rr__fail(err, RR_E_FORMAT,
                            "%s: %s: data ends at byte %llu of %llu: file is truncated", file,
                            e->t.name, end, (unsigned long long)n_data);
        if (e->begin < at)
            return rr__fail(err, RR_E_FORMAT, "%s: %s: overlaps %s", file, e->t.name,
                            all->e[i - 1].t.name);
        if (e->begin > at)
            return rr__fail(err, RR_E_FORMAT, "%s: %s: %llu bytes before it belong to no tensor",
                            file, e->t.name, begin - (unsigned long long)at);
        e->t.data = data + e->begin;
        e->t.bytes = (size_t)want;
        at = e->end;
    }
    if (at != n_data)
        return rr__fail(err, RR_E_FORMAT, "%s: %llu bytes behind the last tensor", file,
                        (unsigned long long)(n_data - at));
    return RR_OK;
}

rr_status rr__st_parse(const char *file, const void *ptr, size_t size, rr__arena *a, rr__st *out,
                       rr_error *err) {
    const unsigned char *p = ptr;
    entries              all = {0};
    rr__st               st = {0};
    uint64_t             n_header = 0;
    rr_status            s;

    if (size < 8)
        return rr__fail(err, RR_E_FORMAT, "%s: %zu bytes, too short for safetensors", file, size);
    for (int i = 7; i >= 0; i--)
        n_header = n_header << 8 | p[i];
    if (n_header > MAX_HEADER || n_header > size - 8)
        return rr__fail(err, RR_E_FORMAT,
                        "%s: header of %llu bytes in a file of %zu: truncated or not safetensors",
                        file, (unsigned long long)n_header, size);
    s = read_header(file, p + 8, (size_t)n_header, a, &all, err);
    if (s)
        return s;
    s = check_layout(file, p + 8 + n_header, size - 8 - n_header, &all, err);
    if (s)
        return s;
    st.n = all.n;
    st.tensor = rr__arena_calloc(a, all.n ? all.n : 1, sizeof *st.tensor);
    if (!st.tensor)
        return rr__fail(err, RR_E_NOMEM, "%s: out of memory", file);
    for (size_t i = 0; i < all.n; i++)
        st.tensor[i] = all.e[i].t;
    rr__st_sort(&st);
    for (size_t i = 1; i < st.n; i++)
        if (strcmp(st.tensor[i - 1].name, st.tensor[i].name) == 0)
            return rr__fail(err, RR_E_FORMAT, "%s: %s: named twice", file, st.tensor[i].name);
    *out = st;
    return RR_OK;
}

void rr__st_sort(rr__st *st) {
    if (st->n > 0)
        qsort(st->tensor, st->n, sizeof *st->tensor, by_name);
}

const rr__st_tensor *rr__st_find(const rr__st *st, const char *name) {
    rr__st_tensor key = {.name = name};

    return st->n ? bsearch(&key, st->tensor, st->n, sizeof key, by_name) : NULL;
}

/* ---- the index ------------------------------------------------------------ */

/* The shard's number in out->file, which grows by a name not seen yet; -1 on error. */
static int32_t shard_number(rr__json *j, rr__arena *a, rr_str s, rr__st_index *out) {
    const char *name;

    for (int32_t i = 0; i < out->n_file; i++)
        if (rr__json_eq(s, out->file[i]))
            return i;
    name = take_name(j, a, s);
    if (!name)
        return -1;
    if (strchr(name, '/') || name[0] == '.') { /* no way out of the model's folder */
        rr__json_error(j, "a shard must be a plain file name");
        return -1;
    }
    if (out->n_file == MAX_SHARDS) {
        rr__json_error(j, "more than 1000 shards");
        return -1;
    }
    out->file[out->n_file] = name;
    return out->n_file++;
}

static void read_weight_map(rr__json *j, rr__arena *a, rr__st_index *out) {
    rr__json count = *j;
    size_t   n = 0;
    rr_str   key, file;

    for (rr__json_object(&count); rr__json_key(&count, &key); n++)
        rr__json_skip(&count);
    out->name = rr__arena_calloc(a, n + 1, sizeof *out->name);
    out->shard = rr__arena_calloc(a, n + 1, sizeof *out->shard);
    out->file = rr__arena_calloc(a, MAX_SHARDS, sizeof *out->file);
    if (!out->name || !out->shard || !out->file) {
        rr__json_error(j, "out of memory");
        return;
    }
    for (rr__json_object(j); rr__json_key(j, &key) && rr__json_string(j, &file); out->n++) {
        out->name[out->n] = take_name(j, a, key);
        out->shard[out->n] = shard_number(j, a, file, out);
        if (j->what)
            return;
    }
}

rr_status rr__st_index_parse(const char *file, const void *ptr, size_t size, rr__arena *a,
                             rr__st_index *out, rr_error *err) {
    rr__st_index index = {0};
    rr__json     j;
    rr_str       key;

    rr__json_init(&j, ptr, size, a);
    rr__json_object(&j);
    while (rr__json_key(&j, &key)) {
        if (!rr__json_eq(key, "weight_map"))
            rr__json_skip(&j);
        else if (index.name)
            rr__json_error(&j, "weight_map twice");
        else
            read_weight_map(&j, a, &index);
    }
    if (!rr__json_done(&j))
        return rr__json_fail(&j, file, err);
    if (index.n == 0)
        return rr__fail(err, RR_E_FORMAT, "%s: weight_map is missing or empty", file);
    *out = index;
    return RR_OK;
}
