/* json.h - a strict pull reader of JSON over bytes in memory.
 *
 * The caller walks the document in the order it is written; nothing is built and nothing is
 * allocated, except a string that holds escapes, which goes to the caller's arena:
 *
 *     rr__json_init(&j, ptr, len, &arena);
 *     rr__json_object(&j);
 *     while (rr__json_key(&j, &key))
 *         if (rr__json_eq(key, "layers"))
 *             rr__json_i64(&j, &layers);
 *         else
 *             rr__json_skip(&j);
 *     if (!rr__json_done(&j))
 *         return rr__json_fail(&j, path, err);          // "config.json: byte 17: expected ':'"
 *
 * The first error sticks: from then on every call returns 0 and writes no output, so that loops end
 * and one check at the end is enough. An rr__json is plain data: copy it to come back to a place.
 *
 * Strict as RFC 8259: no comments, no trailing comma, no NaN. Bytes of strings above 0x7f are passed
 * on unchecked (the tokenizer reads invalid UTF-8 as U+FFFD); an escaped lone surrogate becomes
 * U+FFFD. Duplicate keys are all shown. */
#ifndef RR_BASE_JSON_H
#define RR_BASE_JSON_H

#include "base/arena.h"

enum { RR__JSON_DEPTH = 128 }; /* containers inside each other */

typedef enum rr__json_type {
    RR__JSON_ERROR, /* end of input, a syntax error, or an earlier error */
    RR__JSON_NULL,
    RR__JSON_BOOL,
    RR__JSON_NUMBER,
    RR__JSON_STRING,
    RR__JSON_ARRAY,
    RR__JSON_OBJECT
} rr__json_type;

typedef struct rr__json {
    const char *base, *p, *end;
    rr__arena  *arena; /* for strings with escapes */
    const char *what;  /* the first error, or NULL */
    size_t      at;    /* its byte offset          */
    int32_t     depth;
    int32_t     first; /* just behind a '[' or '{' */
} rr__json;

/* arena may be NULL: then a string with escapes is an error. ptr may be NULL if len is 0. */
void rr__json_init(rr__json *j, const void *ptr, size_t len, rr__arena *arena);

/* Type of the value that comes next, without taking it. */
rr__json_type rr__json_peek(rr__json *j);

/* Enter an object or array; 1 unless something else stands there. */
int rr__json_object(rr__json *j);
int rr__json_array(rr__json *j);
/* Take the next key and its ':'; 0 at the '}' (which is taken) or on error. */
int rr__json_key(rr__json *j, rr_str *key);
/* Whether the array has another element; 0 takes the ']'. */
int rr__json_next(rr__json *j);

/* Take one value of a type; 1 on success. */
int rr__json_string(rr__json *j, rr_str *out);
int rr__json_f64(rr__json *j, double *out);
int rr__json_i64(rr__json *j, int64_t *out); /* no fraction, no exponent, inside int64 */
int rr__json_bool(rr__json *j, int *out);
int rr__json_null(rr__json *j);
/* Take any value; raw gets its bytes and may be NULL. The syntax is checked all the same. */
int rr__json_skip(rr__json *j);
int rr__json_raw(rr__json *j, rr_str *raw);

/* 1 if there was no error and nothing but white space is left. */
int rr__json_done(rr__json *j);

/* Report the caller's own finding at the present place, unless there is an error already; 0. */
int rr__json_error(rr__json *j, const char *what);
/* "name: byte 17: what"; RR_E_NOMEM where what is "out of memory", else RR_E_FORMAT. */
rr_status rr__json_fail(const rr__json *j, const char *name, rr_error *err);

int rr__json_eq(rr_str s, const char *literal);

#endif
