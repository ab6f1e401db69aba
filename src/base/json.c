/* json.c - see json.h. White space and string bodies are scanned eight bytes at a time, decimal
 * fractions of up to 19 digits are converted without strtod: a tokenizer.json of 17 MB is mostly
 * indentation and scores such as -11.514299392700195. */
#include "base/json.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONES 0x0101010101010101u

enum { MAX_DIGITS = 400 }; /* of a number's mantissa; no double needs as many to be told apart */

static const char out_of_memory[] = "out of memory";

void rr__json_init(rr__json *j, const void *ptr, size_t len, rr__arena *arena) {
    static const char empty[1] = "";
    const char       *p = ptr ? ptr : empty;

    *j = (rr__json){.base = p, .p = p, .end = p + (ptr ? len : 0), .arena = arena};
}

static int fail_at(rr__json *j, const char *p, const char *what) {
    if (!j->what) {
        j->what = what;
        j->at = (size_t)(p - j->base);
        j->p = j->end; /* nothing is left to read */
    }
    return 0;
}

int rr__json_error(rr__json *j, const char *what) {
    return fail_at(j, j->p, what);
}

rr_status rr__json_fail(const rr__json *j, const char *name, rr_error *err) {
    const char *what = j->what ? j->what : "no error";
    rr_status   s = strcmp(what, out_of_memory) == 0 ? RR_E_NOMEM : RR_E_FORMAT;

    return rr__fail(err, s, "%s: byte %zu: %s", name, j->at, what);
}

int rr__json_eq(rr_str s, const char *literal) {
    return strlen(literal) == s.len && (s.len == 0 || memcmp(s.ptr, literal, s.len) == 0);
}

static uint64_t load8(const char *p) {
    uint64_t x;

    memcpy(&x, p, 8);
    return x;
}

static void skip_space(rr__json *j) {
    const char *p = j->p, *end = j->end;

    for (;;) {
        while (end - p >= 8 && load8(p) == ONES * ' ')
            p += 8;
        if (p == end || (*p != ' ' && *p != '\n' && *p != '\r' && *p != '\t'))
            break;
        p++;
    }
    j->p = p;
}

rr__json_type rr__json_peek(rr__json *j) {
    skip_space(j);
    if (j->p == j->end) {
        fail_at(j, j->p, "unexpected end");
        return RR__JSON_ERROR;
    }
    switch (*j->p) {
    case '{':
        return RR__JSON_OBJECT;
    case '[':
        return RR__JSON_ARRAY;
    case '"':
        return RR__JSON_STRING;
    case 't':
    case 'f':
        return RR__JSON_BOOL;
    case 'n':
        return RR__JSON_NULL;
    default:
        if (*j->p == '-' || (*j->p >= '0' && *j->p <= '9'))
            return RR__JSON_NUMBER;
        fail_at(j, j->p,
                *j->p == 'N' || *j->p == 'I' ? "NaN and Infinity are not JSON"
                                             : "expected a value");
        return RR__JSON_ERROR;
    }
}

static int expect(rr__json *j, rr__json_type type, const char *what) {
    rr__json_type got = rr__json_peek(j);

    if (got == type)
        return 1;
    return fail_at(j, j->p, what); /* keeps the error of peek, if there is one */
}

/* ---- containers ----------------------------------------------------------- */

static int enter(rr__json *j) {
    if (j->depth == RR__JSON_DEPTH)
        return fail_at(j, j->p, "nested too deep");
    j->depth++;
    j->first = 1;
    j->p++;
    return 1;
}

int rr__json_object(rr__json *j) {
    return expect(j, RR__JSON_OBJECT, "expected an object") && enter(j);
}

int rr__json_array(rr__json *j) {
    return expect(j, RR__JSON_ARRAY, "expected an array") && enter(j);
}

/* 1 if an element follows, behind its comma; 0 if the container ends here, or on error. */
static int more(rr__json *j, char close, const char *what) {
    int first = j->first;

    skip_space(j);
    j->first = 0;
    if (j->p == j->end)
        return fail_at(j, j->p, "unexpected end");
    if (*j->p == close) {
        j->p++;
        j->depth--;
        return 0;
    }
    if (first)
        return 1;
    if (*j->p != ',')
        return fail_at(j, j->p, what);
    j->p++;
    return 1;
}

int rr__json_next(rr__json *j) {
    return more(j, ']', "expected ',' or ']'");
}

/* ---- strings -------------------------------------------------------------- */

/* First byte at or behind p that is a quote, a backslash or a control character. */
static const char *scan_string(const char *p, const char *end) {
    while (end - p >= 8) {
        uint64_t x = load8(p), q = x ^ ONES * '"', b = x ^ ONES * '\\';

        if ((((q - ONES) & ~q) | ((b - ONES) & ~b) | ((x - ONES * 0x20) & ~x)) & ONES * 0x80)
            break;
        p += 8;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
        p++;
    return p;
}

static int hex4(const char *p, const char *end, uint32_t *out) {
    uint32_t v = 0;

    if (end - p < 4)
        return 0;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)p[i], low = c | 0x20;

        if (c >= '0' && c <= '9')
            v = v << 4 | (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            v = v << 4 | (uint32_t)(low - 'a' + 10);
        else
            return 0;
    }
    *out = v;
    return 1;
}

static char *put_utf8(char *o, uint32_t c) {
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    } else {
        *o++ = (char)(0xf0 | c >> 18);
        *o++ = (char)(0x80 | (c >> 12 & 63));
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    }
    return o;
}

/* One escape whose backslash is at *p; returns the output's new end, NULL on a bad escape. No
 * escape grows: \uXXXX is six bytes and gives at most three, a pair gives four of twelve. */
static char *unescape(const char **p, const char *end, char *o) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char       *q = *p + 1, *found;
    uint32_t          c, low;

    if (q == end)
        return NULL;
    if (*q != 'u') {
        found = *q ? strchr(from, *q) : NULL;
        if (!found)
            return NULL;
        *o++ = to[found - from];
        *p = q + 1;
        return o;
    }
    if (!hex4(q + 1, end, &c))
        return NULL;
    q += 5;
    if (c >= 0xd800 && c < 0xdc00 && end - q >= 6 && q[0] == '\\' && q[1] == 'u' &&
        hex4(q + 2, end, &low) && low >= 0xdc00 && low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        q += 6;
    } else if (c >= 0xd800 && c < 0xe000) {
        c = 0xfffd; /* half a pair stands for nothing */
    }
    *p = q;
    return put_utf8(o, c);
}

/* The string that opens behind `start`, whose first escape is at p, into the arena. With no out,
 * only check it. */
static int string_escaped(rr__json *j, const char *start, const char *p, rr_str *out) {
    const char *q = p;
    char       *buf, *o, scratch[4];

    while (q < j->end && *q == '\\') { /* where does it end, and is it sound? */
        if (!unescape(&q, j->end, scratch))
            return fail_at(j, q, "bad escape");
        q = scan_string(q, j->end);
    }
    if (q == j->end || *q != '"')
        return fail_at(j, q, q == j->end ? "string does not end" : "control character in a string");
    j->p = q + 1;
    if (!out)
        return 1;
    buf = j->arena ? rr__arena_alloc(j->arena, (size_t)(q - start)) : NULL;
    if (!buf)
        return fail_at(j, start, j->arena ? out_of_memory : "unexpected escape");
    memcpy(buf, start, (size_t)(p - start));
    o = buf + (p - start);
    while (p < q) {
        const char *run;

        o = unescape(&p, q, o);
        run = p;
        p = scan_string(p, q);
        memcpy(o, run, (size_t)(p - run));
        o += p - run;
    }
    *out = (rr_str){buf, (size_t)(o - buf)};
    return 1;
}

static int take_string(rr__json *j, rr_str *out) {
    const char *start = j->p + 1, *p = scan_string(start, j->end);

    if (p < j->end && *p == '\\')
        return string_escaped(j, start, p, out);
    if (p == j->end || *p != '"')
        return fail_at(j, p, p == j->end ? "string does not end" : "control character in a string");
    j->p = p + 1;
    if (out)
        *out = (rr_str){start, (size_t)(p - start)};
    return 1;
}

int rr__json_string(rr__json *j, rr_str *out) {
    return expect(j, RR__JSON_STRING, "expected a string") && take_string(j, out);
}

/* The next key and its colon; key may be NULL. */
static int take_key(rr__json *j, rr_str *key) {
    if (!more(j, '}', "expected ',' or '}'"))
        return 0;
    if (!expect(j, RR__JSON_STRING, "expected a key") || !take_string(j, key))
        return 0;
    skip_space(j);
    if (j->p == j->end || *j->p != ':')
        return fail_at(j, j->p, "expected ':'");
    j->p++;
    return 1;
}

int rr__json_key(rr__json *j, rr_str *key) {
    return take_key(j, key);
}

/* ---- numbers -------------------------------------------------------------- */

typedef struct number {
    const char *start, *end;
    uint64_t    mantissa; /* all digits of it, when n_digit <= 19 */
    int64_t     exp10;    /* value = mantissa * 10^exp10          */
    int32_t     n_digit, negative, integer;
} number;

static const char *digits(const char *p, const char *end, number *n) {
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        if (n->n_digit < 19)
            n->mantissa = n->mantissa * 10 + (uint64_t)(*p - '0');
        if (n->n_digit || *p != '0') /* leading zeros are no digits */
            n->n_digit++;
        if (n->n_digit > MAX_DIGITS)
            break;
    }
    return p;
}

static int take_number(rr__json *j, number *n) {
    const char *p = j->p, *end = j->end, *q;

    *n = (number){.start = p, .integer = 1};
    if (*p == '-') {
        n->negative = 1;
        p++;
    }
    q = digits(p, end, n);
    if (q == p || (*p == '0' && q > p + 1))
        return fail_at(j, p, "bad number");
    p = q;
    if (p < end && *p == '.') {
        q = digits(++p, end, n);
        if (q == p)
            return fail_at(j, p, "bad number");
        n->integer = 0;
        n->exp10 = p - q;
        p = q;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        int     minus = p + 1 < end && p[1] == '-';
        int64_t e = 0;

        p += 1 + (p + 1 < end && (p[1] == '-' || p[1] == '+'));
        for (q = p; q < end && *q >= '0' && *q <= '9'; q++)
            e = e < 100000 ? e * 10 + (*q - '0') : e;
        if (q == p)
            return fail_at(j, p, "bad number");
        n->integer = 0;
        n->exp10 += minus ? -e : e;
        p = q;
    }
    if (n->n_digit > MAX_DIGITS)
        return fail_at(j, n->start, "number is too long");
    n->end = j->p = p;
    return 1;
}

/* Up to 19 digits times 10^+-27 are exact in a 64-bit mantissa, so one long double operation is
 * off by at most half of its last bit, and rounding it to double is right unless it lies exactly
 * between two doubles. Returns 0 then, and where long double is another format. */
static int number_fast(const number *n, double *out) {
#if LDBL_MANT_DIG == 64
    static const long double pow10[] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,
                                        1e7L,  1e8L,  1e9L,  1e10L, 1e11L, 1e12L, 1e13L,
                                        1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L, 1e20L,
                                        1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L};
    long double              x = (long double)n->mantissa;
    uint64_t                 bits;

    if (n->n_digit > 19 || n->exp10 < -27 || n->exp10 > 27)
        return 0;
    x = n->exp10 < 0 ? x / pow10[-n->exp10] : x * pow10[n->exp10];
    memcpy(&bits, &x, 8);
    if ((bits & 0x7ff) == 0x400)
        return 0;
    *out = n->negative ? -(double)x : (double)x;
    return 1;
#else
    return 0;
#endif
}

/* The same by strtod, from digits and an exponent alone: the point depends on the locale. */
static double number_slow(const number *n) {
    char    buf[MAX_DIGITS + 32];
    size_t  len = 0;
    int32_t seen = 0;

    if (n->n_digit == 0)
        return n->negative ? -0.0 : 0.0;
    if (n->negative)
        buf[len++] = '-';
    for (const char *p = n->start; p < n->end && *p != 'e' && *p != 'E'; p++) {
        seen |= *p >= '1' && *p <= '9';
        if (seen && *p != '.')
            buf[len++] = *p;
    }
    snprintf(buf + len, sizeof buf - len, "e%lld", (long long)n->exp10);
    return strtod(buf, NULL);
}

int rr__json_f64(rr__json *j, double *out) {
    number n;
    double d;

    if (!expect(j, RR__JSON_NUMBER, "expected a number") || !take_number(j, &n))
        return 0;
    if (!number_fast(&n, &d))
        d = number_slow(&n);
    if (d > DBL_MAX || d < -DBL_MAX)
        return fail_at(j, n.start, "number is out of range");
    *out = d;
    return 1;
}

int rr__json_i64(rr__json *j, int64_t *out) {
    number n;

    if (!expect(j, RR__JSON_NUMBER, "expected an integer") || !take_number(j, &n))
        return 0;
    if (!n.integer)
        return fail_at(j, n.start, "expected an integer");
    if (n.n_digit > 19 || n.mantissa > (uint64_t)INT64_MAX)
        return fail_at(j, n.start, "integer is out of range");
    *out = n.negative ? -(int64_t)n.mantissa : (int64_t)n.mantissa;
    return 1;
}

/* ---- the rest ------------------------------------------------------------- */

static int take_word(rr__json *j, const char *word) {
    size_t n = strlen(word);

    if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n) != 0)
        return fail_at(j, j->p, "expected a value");
    j->p += n;
    return 1;
}

int rr__json_bool(rr__json *j, int *out) {
    int yes;

    if (!expect(j, RR__JSON_BOOL, "expected true or false"))
        return 0;
    yes = *j->p == 't';
    if (!take_word(j, yes ? "true" : "false"))
        return 0;
    *out = yes;
    return 1;
}

int rr__json_null(rr__json *j) {
    return expect(j, RR__JSON_NULL, "expected null") && take_word(j, "null");
}

int rr__json_skip(rr__json *j) {
    number n;
    int    yes;

    switch (rr__json_peek(j)) {
    case RR__JSON_STRING:
        return take_string(j, NULL);
    case RR__JSON_NUMBER:
        return take_number(j, &n);
    case RR__JSON_BOOL:
        return rr__json_bool(j, &yes);
    case RR__JSON_NULL:
        return rr__json_null(j);
    case RR__JSON_ARRAY:
        for (rr__json_array(j); rr__json_next(j);)
            rr__json_skip(j);
        return !j->what;
    case RR__JSON_OBJECT:
        for (rr__json_object(j); take_key(j, NULL);)
            rr__json_skip(j);
        return !j->what;
    case RR__JSON_ERROR:
        break;
    }
    return 0;
}

int rr__json_raw(rr__json *j, rr_str *raw) {
    const char *start;

    skip_space(j);
    start = j->p;
    if (!rr__json_skip(j))
        return 0;
    *raw = (rr_str){start, (size_t)(j->p - start)};
    return 1;
}

int rr__json_done(rr__json *j) {
    if (j->what)
        return 0;
    skip_space(j);
    if (j->p != j->end)
        return fail_at(j, j->p, "unexpected text behind the value");
    return 1;
}
