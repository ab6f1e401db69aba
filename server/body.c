/* body.c - see body.h. */
#include "server/body.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef enum kind { TEXTS, TRI, NUM, STR, RAW } kind;

static const struct {
    const char *key;
    kind        kind;
    size_t      at; /* offset in rr__fields */
} keys[] = {
#define F(key, kind, field)                                                                        \
    { key, kind, offsetof(rr__fields, field) }
    F("query", TEXTS, query),
    F("texts", TEXTS, texts),
    F("documents", TEXTS, documents),
    F("passages", TEXTS, documents),
    F("items", TEXTS, documents),
    F("text_2", TEXTS, documents),
    F("data_2", TEXTS, documents),
    F("queries", TEXTS, queries),
    F("text_1", TEXTS, queries),
    F("data_1", TEXTS, queries),
    F("truncate", TRI, truncate),
    F("truncation", TRI, truncate),
    F("raw_scores", TRI, raw_scores),
    F("use_activation", TRI, use_activation),
    F("return_text", TRI, return_text),
    F("return_documents", TRI, return_documents),
    F("details", TRI, details),
    F("add_special_tokens", TRI, add_special),
    F("skip_special_tokens", TRI, skip_special),
    F("top_n", NUM, top_n),
    F("top_k", NUM, top_n),
    F("truncate_prompt_tokens", NUM, max_length),
    F("max_length", NUM, max_length),
    F("max_tokens_per_doc", NUM, max_doc),
    F("max_tokens_per_query", NUM, max_query),
    F("priority", NUM, priority),
    F("deadline_ms", NUM, deadline_ms),
    F("model", STR, model),
    F("id", STR, id),
    F("request_id", STR, id),
    F("truncation_direction", STR, side),
    F("truncation_side", STR, side),
    F("truncation_policy", STR, truncation_policy),
    F("inputs", RAW, inputs),
    F("text_pairs", RAW, text_pairs),
    F("instances", RAW, instances),
    F("ids", RAW, ids),
    F("outputs", RAW, outputs),
    F("parameters", RAW, parameters),
#undef F
};
enum { N_KEYS = sizeof keys / sizeof keys[0] };

static int wrong(char *what, size_t cap, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int wrong(char *what, size_t cap, const char *fmt, ...) {
    va_list args;

    va_start(args, fmt);
    vsnprintf(what, cap, fmt, args);
    va_end(args);
    return 0;
}

/* A string, or an object with a string "text". */
static int take_text(rr__json *j, rr_str *out) {
    rr_str key;
    int    found = 0;

    if (rr__json_peek(j) == RR__JSON_STRING)
        return rr__json_string(j, out);
    if (rr__json_peek(j) != RR__JSON_OBJECT || !rr__json_object(j))
        return 0;
    while (rr__json_key(j, &key))
        if (rr__json_eq(key, "text") && rr__json_peek(j) == RR__JSON_STRING)
            found = rr__json_string(j, out);
        else
            rr__json_skip(j);
    return found && !j->what;
}

static int push(rr__arena *arena, rr__texts *t, size_t *cap, rr_str s) {
    if (t->n == *cap) {
        size_t  more = *cap ? *cap * 2 : 16;
        rr_str *at = rr__arena_calloc(arena, more, sizeof *at);

        if (!at)
            return 0;
        if (t->n)
            memcpy(at, t->at, t->n * sizeof *at);
        t->at = at;
        *cap = more;
    }
    t->at[t->n++] = s;
    return 1;
}

int rr__body_texts(rr__json *j, rr__arena *arena, rr__texts *out, char *what, size_t cap) {
    rr__texts t = {.set = 1};
    rr_str    s;
    size_t    room = 0;

    if (rr__json_peek(j) != RR__JSON_ARRAY) {
        t.single = 1;
        if (!take_text(j, &s))
            return wrong(what, cap,
                         "expected a string, an object with \"text\", or a list of them");
        if (!push(arena, &t, &room, s))
            return wrong(what, cap, "out of memory");
    } else {
        rr__json_array(j);
        while (rr__json_next(j)) {
            if (!take_text(j, &s))
                return wrong(what, cap, "item %zu: expected a string or an object with \"text\"",
                             t.n);
            if (!push(arena, &t, &room, s))
                return wrong(what, cap, "out of memory");
        }
    }
    *out = t;
    return 1;
}

static int take_tri(rr__json *j, rr__tri *out, char *what, size_t cap) {
    rr_str s;
    int    b = 0;

    if (rr__json_peek(j) == RR__JSON_BOOL && rr__json_bool(j, &b)) {
        *out = b ? RR__TRUE : RR__FALSE;
        return 1;
    }
    if (rr__json_peek(j) == RR__JSON_STRING && rr__json_string(j, &s)) {
        if (rr__json_eq(s, "true") || rr__json_eq(s, "True") || rr__json_eq(s, "END")) {
            *out = RR__TRUE;
            return 1;
        }
        if (rr__json_eq(s, "false") || rr__json_eq(s, "False") || rr__json_eq(s, "NONE")) {
            *out = RR__FALSE;
            return 1;
        }
    }
    return wrong(what, cap, "expected true or false");
}

static int take_num(rr__json *j, rr__num *out, char *what, size_t cap) {
    double v = 0;

    if (rr__json_peek(j) != RR__JSON_NUMBER || !rr__json_f64(j, &v) || v != floor(v) ||
        fabs(v) > 9007199254740992.0)
        return wrong(what, cap, "expected a whole number");
    *out = (rr__num){(int64_t)v, 1};
    return 1;
}

/* One value of a known key. */
static int take(rr__json *j, int k, rr__arena *arena, rr__fields *out, char *what, size_t cap) {
    void *field = (char *)out + keys[k].at;

    if (keys[k].kind != RAW && rr__json_peek(j) == RR__JSON_NULL)
        return rr__json_null(j);
    switch (keys[k].kind) {
    case TEXTS:
        return rr__body_texts(j, arena, field, what, cap);
    case TRI:
        return take_tri(j, field, what, cap);
    case NUM:
        return take_num(j, field, what, cap);
    case STR:
        return (rr__json_peek(j) == RR__JSON_STRING && rr__json_string(j, field)) ||
               wrong(what, cap, "expected a string");
    case RAW:
        return rr__json_raw(j, field);
    }
    return 0;
}

int rr__body_read(const char *ptr, size_t len, rr__arena *arena, rr__fields *out, char *text,
                  size_t cap) {
    rr__json j;
    rr_str   key;
    rr_error err;

    *out = (rr__fields){0};
    text[0] = '\0';
    rr__json_init(&j, ptr, len, arena);
    if (rr__json_peek(&j) != RR__JSON_ERROR && rr__json_peek(&j) != RR__JSON_OBJECT) {
        wrong(text, cap, "the body must be a JSON object");
        return RR__BODY_FIELD;
    }
    rr__json_object(&j);
    while (rr__json_key(&j, &key)) {
        char what[160] = "";
        int  k = 0;

        while (k < N_KEYS && !rr__json_eq(key, keys[k].key))
            k++;
        if (k == N_KEYS) {
            rr__json_skip(&j);
        } else if (!take(&j, k, arena, out, what, sizeof what) && !j.what) {
            wrong(text, cap, "%s: %s", keys[k].key, what);
            return strcmp(what, "out of memory") == 0 ? RR__BODY_NOMEM : RR__BODY_FIELD;
        }
    }
    if (rr__json_done(&j))
        return RR__BODY_OK;
    if (rr__json_fail(&j, "JSON body", &err) == RR_E_NOMEM) {
        wrong(text, cap, "out of memory");
        return RR__BODY_NOMEM;
    }
    wrong(text, cap, "%s", err.text);
    return RR__BODY_MALFORMED;
}
