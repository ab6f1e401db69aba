/* json_out.c - see json_out.h. */
#include "base/json_out.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rr__out_raw(rr__json_out *o, const char *ptr, size_t len) {
    if (o->cap - o->len < len) {
        size_t cap = o->cap ? o->cap : 256;
        char  *p = NULL;

        while (cap - o->len < len && cap < SIZE_MAX / 4)
            cap *= 2;
        if (cap - o->len >= len)
            p = realloc(o->ptr, cap);
        if (!p) {
            o->failed = 1;
            return;
        }
        o->ptr = p;
        o->cap = cap;
    }
    if (len)
        memcpy(o->ptr + o->len, ptr, len);
    o->len += len;
}

rr_status rr__out_save(const rr__json_out *o, const char *path, rr_error *err) {
    FILE     *f;
    rr_status s = RR_OK;

    if (o->failed)
        return rr__fail(err, RR_E_NOMEM, "%s: out of memory", path);
    f = fopen(path, "w");
    if (!f || fwrite(o->ptr, 1, o->len, f) != o->len)
        s = rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    if (f && fclose(f) != 0 && !s)
        s = rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    return s;
}

void rr__out_reset(rr__json_out *o) {
    o->len = 0;
    o->comma = o->failed = 0;
}

void rr__out_free(rr__json_out *o) {
    free(o->ptr);
    *o = (rr__json_out){0};
}

static void value(rr__json_out *o, const char *ptr, size_t len) {
    if (o->comma)
        rr__out_raw(o, ",", 1);
    rr__out_raw(o, ptr, len);
    o->comma = 1;
}

static void open_with(rr__json_out *o, const char *bracket) {
    value(o, bracket, 1);
    o->comma = 0;
}

static void close_with(rr__json_out *o, const char *bracket) {
    rr__out_raw(o, bracket, 1);
    o->comma = 1;
}

void rr__out_object(rr__json_out *o) {
    open_with(o, "{");
}
void rr__out_end_object(rr__json_out *o) {
    close_with(o, "}");
}
void rr__out_array(rr__json_out *o) {
    open_with(o, "[");
}
void rr__out_end_array(rr__json_out *o) {
    close_with(o, "]");
}

void rr__out_key(rr__json_out *o, const char *key) {
    rr__out_cstr(o, key);
    rr__out_raw(o, ":", 1);
    o->comma = 0;
}

/* Bytes of the well-formed UTF-8 sequence at p (no overlong form, no surrogate), 0 if there is
 * none. */
static size_t utf8_len(const unsigned char *p, size_t left) {
    static const unsigned min[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t   n = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    unsigned c;

    if (n <= 1)
        return n;
    if (p[0] > 0xf4 || left < n)
        return 0;
    c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 63u);
    }
    return c < min[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

void rr__out_str(rr__json_out *o, rr_str s) {
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t               i = 0, plain = 0; /* bytes [plain, i) go out as they are */

    value(o, "\"", 1);
    while (i < s.len) {
        size_t n = utf8_len(p + i, s.len - i);
        char   esc[8];

        if (n > 1 || (n == 1 && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\' && p[i] != 0x7f)) {
            i += n;
            continue;
        }
        if (i > plain)
            rr__out_raw(o, s.ptr + plain, i - plain);
        if (n == 0)
            snprintf(esc, sizeof esc, "\xef\xbf\xbd");
        else if (p[i] == '\n')
            snprintf(esc, sizeof esc, "\\n");
        else if (p[i] == '\t')
            snprintf(esc, sizeof esc, "\\t");
        else if (p[i] == '"' || p[i] == '\\')
            snprintf(esc, sizeof esc, "\\%c", p[i]);
        else
            snprintf(esc, sizeof esc, "\\u%04x", p[i]);
        rr__out_raw(o, esc, strlen(esc));
        plain = ++i;
    }
    if (i > plain)
        rr__out_raw(o, s.ptr + plain, i - plain);
    rr__out_raw(o, "\"", 1);
}

void rr__out_cstr(rr__json_out *o, const char *s) {
    rr__out_str(o, (rr_str){s, strlen(s)});
}

void rr__out_i64(rr__json_out *o, int64_t v) {
    char buf[24];

    value(o, buf, (size_t)snprintf(buf, sizeof buf, "%lld", (long long)v));
}

void rr__out_u64(rr__json_out *o, uint64_t v) {
    char buf[24];

    value(o, buf, (size_t)snprintf(buf, sizeof buf, "%llu", (unsigned long long)v));
}

void rr__out_bool(rr__json_out *o, int v) {
    value(o, v ? "true" : "false", v ? 4 : 5);
}

void rr__out_null(rr__json_out *o) {
    value(o, "null", 4);
}

/* Digits d and exponent e with |v| = d[0].d[1]d[2].. * 10^e, as few digits as read back as v.
 * printf and strtod may use another point than '.', so the point is cut out in between. */
static int shortest(double v, int is_float, char digit[20], int *exp10) {
    int n = 0, most = is_float ? 9 : 17;

    for (int want = is_float ? 6 : 15; want <= most; want++) {
        char   text[40], back[48];
        char  *e;
        double again;

        snprintf(text, sizeof text, "%.*e", want - 1, v);
        e = strchr(text, 'e');
        *exp10 = (int)strtol(e + 1, NULL, 10);
        n = 0;
        for (const char *p = text; p < e; p++)
            if (*p >= '0' && *p <= '9')
                digit[n++] = *p;
        digit[n] = '\0';
        snprintf(back, sizeof back, "%se%d", digit, *exp10 - (n - 1));
        again = is_float ? (double)strtof(back, NULL) : strtod(back, NULL);
        if (again == v)
            break;
    }
    while (n > 1 && digit[n - 1] == '0')
        digit[--n] = '\0';
    return n;
}

static void number(rr__json_out *o, double v, int is_float) {
    char digit[20], buf[64];
    int  e, n, len = 0;

    if (!isfinite(v)) {
        rr__out_null(o);
        return;
    }
    n = shortest(fabs(v), is_float, digit, &e);
    if (signbit(v))
        buf[len++] = '-';
    if (e >= 0 && e < 16) { /* 1234.5, 1200 */
        for (int i = 0; i <= e || i < n; i++) {
            if (i == e + 1)
                buf[len++] = '.';
            buf[len++] = i < n ? digit[i] : '0';
        }
    } else if (e < 0 && e >= -5) { /* 0.0012 */
        len += snprintf(buf + len, sizeof buf - (size_t)len, "0.%.*s%s", -e - 1, "0000", digit);
    } else {
        len += snprintf(buf + len, sizeof buf - (size_t)len, "%c%s%se%d", digit[0],
                        n > 1 ? "." : "", digit + 1, e);
    }
    value(o, buf, (size_t)len);
}

void rr__out_f32(rr__json_out *o, float v) {
    number(o, v, 1);
}

void rr__out_f64(rr__json_out *o, double v) {
    number(o, v, 0);
}
