/* lines.c - see lines.h. */
#define _GNU_SOURCE
#include "lines.h"

#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

rr_status cli_lines_open(cli_lines *l, const char *path, rr_error *err) {
    struct stat st;

    *l = (cli_lines){.name = path};
    if (strcmp(path, "-") == 0) {
        l->file = stdin;
        l->name = "standard input";
        l->to_stdin = 1;
    } else if (!(l->file = fopen(path, "r"))) {
        return rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    }
    if (fstat(fileno(l->file), &st) != 0) { /* checked now: the number may be reused soon */
        cli_lines_close(l);
        return rr__fail(err, RR_E_IO, "%s: %s", l->name, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        cli_lines_close(l);
        return rr__fail(err, RR_E_IO, "%s: is a directory", path);
    }
    if (S_ISREG(st.st_mode))
        l->total = (uint64_t)st.st_size;
    return RR_OK;
}

void cli_lines_close(cli_lines *l) {
    if (l->file && !l->to_stdin)
        fclose(l->file);
    free(l->buf);
    l->file = NULL;
    l->buf = NULL;
}

int cli_lines_next(cli_lines *l, rr_str *out, rr_error *err) {
    ssize_t n;

    errno = 0;
    n = getline(&l->buf, &l->cap, l->file);
    if (n < 0) {
        if (feof(l->file) && !ferror(l->file))
            return 0;
        rr__fail(err, errno == ENOMEM ? RR_E_NOMEM : RR_E_IO, "%s: line %llu: %s", l->name,
                 (unsigned long long)l->line + 1, strerror(errno ? errno : EIO));
        return -1;
    }
    l->line++;
    l->bytes += (uint64_t)n;
    if (n && l->buf[n - 1] == '\n')
        n--;
    if (n && l->buf[n - 1] == '\r')
        n--;
    *out = (rr_str){l->buf, (size_t)n};
    return 1;
}

void cli_put_json(FILE *to, rr__json_out *o) {
    rr__out_raw(o, "\n", 1);
    fwrite(o->ptr, 1, o->len, to);
    rr__out_reset(o);
}

void cli_put_xml(FILE *to, rr_str s) {
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '<' || s.ptr[i] == '&')
            fputs(s.ptr[i] == '<' ? "&lt;" : "&amp;", to);
        else
            fputc((unsigned char)s.ptr[i] < 0x20 ? ' ' : s.ptr[i], to);
}

void cli_progress(const char *what, uint64_t done, uint64_t total, int last) {
    static int64_t start, shown;
    int64_t        now = rr_now_us();
    double         seconds;

    if (!isatty(2))
        return;
    if (!start)
        start = now;
    if (!last && now - shown < 100000)
        return;
    shown = now;
    seconds = (double)(now - start) * 1e-6;
    if (total && done)
        fprintf(stderr, "\r%s %5.1f %%  %.0f s, %.0f s left   ", what,
                100.0 * (double)done / (double)total, seconds,
                seconds * (double)(total - done) / (double)done);
    else
        fprintf(stderr, "\r%s %llu  %.0f s   ", what, (unsigned long long)done, seconds);
    if (last) {
        fputs("\r\033[K", stderr);
        start = 0;
    }
}

rr_status cli_record_parse(rr_str line, rr__arena *arena, const char *name, cli_record *out,
                           rr_error *err) {
    rr__json j;
    rr_str   key;

    *out = (cli_record){{NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}};
    rr__json_init(&j, line.ptr, line.len, arena);
    rr__json_object(&j);
    while (rr__json_key(&j, &key)) {
        rr_str *into = NULL;

        if (rr__json_eq(key, "id") || rr__json_eq(key, "_id"))
            into = &out->id;
        else if (rr__json_eq(key, "text"))
            into = &out->text;
        else if (rr__json_eq(key, "query"))
            into = &out->query;
        else if (rr__json_eq(key, "document"))
            into = &out->document;
        if (into == &out->id && rr__json_peek(&j) == RR__JSON_NUMBER)
            rr__json_raw(&j, into); /* ids may be numbers; kept as written */
        else if (into)
            rr__json_string(&j, into);
        else
            rr__json_skip(&j);
    }
    return rr__json_done(&j) ? RR_OK : rr__json_fail(&j, name, err);
}

/* ---- columns --------------------------------------------------------------- */

/* The next character at s: its columns and bytes. Broken UTF-8 and controls take one column. */
static size_t next_char(rr_str s, int *columns) {
    unsigned char c = (unsigned char)s.ptr[0];
    size_t        n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    wchar_t       w = c < 0x80 ? c : c & (0x7f >> n);
    int           width;

    *columns = 1;
    if (n > s.len)
        return 1;
    for (size_t i = 1; i < n; i++) {
        if (((unsigned char)s.ptr[i] & 0xc0) != 0x80)
            return 1;
        w = w << 6 | (s.ptr[i] & 0x3f);
    }
    width = c < 0x80 ? 1 : wcwidth(w);
    *columns = width < 0 ? 1 : width;
    return n;
}

int cli_width(rr_str s) {
    int total = 0, columns;

    while (s.len) {
        size_t n = next_char(s, &columns);

        total += columns;
        s.ptr += n;
        s.len -= n;
    }
    return total;
}

size_t cli_fit(rr_str s, int columns) {
    size_t at = 0;

    while (at < s.len) {
        int    w;
        size_t n = next_char((rr_str){s.ptr + at, s.len - at}, &w);

        if (w > columns)
            break;
        columns -= w;
        at += n;
    }
    return at;
}

void cli_print_cell(FILE *to, rr_str s, int columns) {
    size_t keep = cli_fit(s, columns);
    int    width;

    if (keep < s.len && columns > 0)
        keep = cli_fit(s, columns - 1);
    width = cli_width((rr_str){s.ptr, keep});
    for (size_t i = 0; i < keep; i++)
        fputc((unsigned char)s.ptr[i] < 0x20 || s.ptr[i] == 0x7f ? ' ' : s.ptr[i], to);
    if (keep < s.len && columns > 0) {
        fputs("…", to);
        width++;
    }
    for (; width < columns; width++)
        fputc(' ', to);
}

void cli_print_bar(FILE *to, float share, int columns) {
    static const char *const eighth[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int                      bar = (int)(share * (float)(8 * columns) + 0.5f);

    for (int k = 0; k < bar / 8; k++)
        fputs("█", to);
    fputs(eighth[bar % 8], to);
    for (int k = bar / 8 + (bar % 8 > 0); k < columns; k++)
        fputc(' ', to);
}

int cli_columns(void) {
    struct winsize w;
    const char    *env = getenv("COLUMNS");
    long           n = env ? strtol(env, NULL, 10) : 0;

    if (n >= 40 && n < 1000)
        return (int)n;
    if (ioctl(1, TIOCGWINSZ, &w) == 0 && w.ws_col >= 40)
        return w.ws_col;
    return 100;
}
