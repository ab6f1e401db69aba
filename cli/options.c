/* options.c - see options.h. */
#define _GNU_SOURCE
#include "options.h"

#include "cli.h"
#include "trt.h"

#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FLAGS = 64 };

int cli_fail(const char *command, int code, const char *fmt, ...) {
    va_list ap;

    fprintf(stderr, "rerank %s: ", command);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return code;
}

rr_status cli_flush(rr_error *err) {
    int failed = fflush(stdout) != 0 || ferror(stdout);

    return failed ? rr__fail(err, RR_E_IO, "standard output: %s", strerror(errno ? errno : EIO))
                  : RR_OK;
}

/* The command's own flags and then the common ones, in one array. */
static int collect(const cli_command *c, cli_flag *all) {
    cli_common *m = c->common;
    int         n = 0;

    while (n < c->n_flag && n < MAX_FLAGS) {
        all[n] = c->flag[n];
        n++;
    }
    if (!m)
        return n;
    const cli_flag common[] = {
        {"model", 'm', CLI_TEXT, &m->model, "DIR", "model directory (default: the embedded model)",
         0, 0},
        {"backend", 0, CLI_WORD, &m->backend, CLI_BACKENDS, "default: the best that runs here", 0,
         0},
        {"precision", 0, CLI_WORD, &m->precision, CLI_PRECISIONS, "default: auto", 0, 0},
        {"devices", 0, CLI_TEXT, &m->devices, "LIST", "GPU ordinals: 0 or 0,1 or all (default 0)",
         0, 0},
        {"calibration", 0, CLI_TEXT, &m->calibration, "FILE",
         "8-bit scales from rerank calibrate, or none", 0, 0},
        {"threads", 0, CLI_INT, &m->threads, "N", "CPU threads of the backend (default: all cores)",
         0, 4096},
        {"max-length", 0, CLI_INT, &m->max_length, "N",
         "tokens of a pair (default 512, or what the model takes)", 0, 1 << 20},
        {"max-query", 0, CLI_INT, &m->max_query, "N",
         "query tokens kept (default 3/4 of max-length)", 0, 1 << 20},
        {"truncation", 0, CLI_WORD, &m->truncation, "only_second|longest_first|error",
         "what a pair that is longer loses (default only_second)", 0, 0},
        {"truncation-side", 0, CLI_WORD, &m->side, "right|left", "end that is cut (default right)",
         0, 0},
        {"max-batch-tokens", 0, CLI_INT, &m->max_batch_tokens, "N",
         "tokens in one forward pass (default 16384)", 0, 1 << 24},
        {"fast", 0, CLI_BOOL, &m->fast, NULL,
         "cuda: small batches sooner; last bits depend on the batch", 0, 0},
        {"engine", 0, CLI_TEXT, &m->engine, "FILE", "TensorRT engine of rerank build: backend trt",
         0, 0},
        {"rebuild", 0, CLI_BOOL, &m->rebuild, NULL, "make the engine anew where it is stale", 0, 0},
        {"trt-lib", 0, CLI_TEXT, &m->trt_lib, "DIR",
         "where TensorRT's libraries are (default $RERANK_TRT_LIB)", 0, 0},
    };
    for (size_t i = 0; i < sizeof common / sizeof common[0] && n < MAX_FLAGS; i++) {
        int own = 0; /* a command may give a common flag a wider meaning */

        for (int k = 0; k < c->n_flag; k++)
            own |= strcmp(c->flag[k].name, common[i].name) == 0;
        if (!own)
            all[n++] = common[i];
    }
    return n;
}

static void help(const cli_command *c, const cli_flag *all, int n) {
    printf("usage: rerank %s %s\n\n%s\n\n", c->name, c->usage, c->summary);
    for (int i = 0; i < n; i++) {
        char left[96];

        if (all[i].kind == CLI_TITLE) {
            printf("%s%s:\n", i ? "\n" : "", all[i].name);
            continue;
        }
        if (c->common && i == c->n_flag)
            printf("\nModel, backend and truncation:\n");
        snprintf(left, sizeof left, "%c%c%s --%s%s%s", all[i].letter ? '-' : ' ',
                 all[i].letter ? all[i].letter : ' ', all[i].letter ? "," : " ", all[i].name,
                 all[i].arg ? " " : "", all[i].arg ? all[i].arg : "");
        if (strlen(left) > 28)
            printf("  %s\n  %-28s %s\n", left, "", all[i].help);
        else
            printf("  %-28s %s\n", left, all[i].help);
    }
    printf("  %-28s %s\n", "-h, --help", "this text");
    if (c->epilog)
        printf("\n%s", c->epilog);
}

/* Edit distance, capped; enough to guess a mistyped flag. */
static int distance(const char *a, const char *b) {
    int    row[64], diagonal, above;
    size_t n = strlen(b);

    if (n >= 63 || strlen(a) >= 63)
        return 99;
    for (size_t j = 0; j <= n; j++)
        row[j] = (int)j;
    for (size_t i = 1; a[i - 1]; i++) {
        diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);

            above = row[j];
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[n];
}

int cli_nearest(const char *text, const char *words, char word[64]) {
    int least = 4;

    *word = '\0';
    while (*words) {
        size_t n = strcspn(words, "|");
        char   w[64];

        if (n < sizeof w) {
            int d;

            memcpy(w, words, n);
            w[n] = '\0';
            d = text[0] && strncmp(w, text, strlen(text)) == 0 ? 0 : distance(text, w);
            if (d < least) {
                least = d;
                memcpy(word, w, n + 1);
            }
        }
        words += n + (words[n] == '|');
    }
    return *word != '\0';
}

static int unknown(const cli_command *c, const cli_flag *all, int n, const char *name) {
    char   names[MAX_FLAGS * 24] = "", word[64];
    size_t at = 0;

    for (int i = 0; i < n && at < sizeof names; i++)
        if (all[i].kind != CLI_TITLE)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s|", all[i].name);
    if (cli_nearest(name, names, word))
        return cli_fail(c->name, EXIT_USAGE, "no flag --%s; did you mean --%s?", name, word);
    return cli_fail(c->name, EXIT_USAGE, "no flag --%s; see rerank %s --help", name, c->name);
}

/* Whether text[0 .. n) is one of the words "a|b|c". */
static int is_word(const char *text, size_t n, const char *words) {
    while (*words) {
        size_t len = strcspn(words, "|");

        if (len == n && memcmp(words, text, n) == 0)
            return 1;
        words += len + (words[len] == '|');
    }
    return 0;
}

/* `what` is how the user wrote the flag, for messages. */
static int take_words(const cli_command *c, const cli_flag *f, const char *what, const char *text) {
    const char *p = text;

    for (;;) {
        size_t n = f->kind == CLI_WORDS ? strcspn(p, ",") : strlen(p);
        char   one[64], word[64];

        if (!is_word(p, n, f->arg)) {
            snprintf(one, sizeof one, "%.*s", (int)(n < 60 ? n : 60), p);
            if (cli_nearest(one, f->arg, word))
                return cli_fail(c->name, EXIT_USAGE, "%s \"%s\" is none of %s; did you mean %s?",
                                what, one, f->arg, word);
            return cli_fail(c->name, EXIT_USAGE, "%s \"%s\" is none of %s", what, one, f->arg);
        }
        if (!p[n])
            break;
        p += n + 1;
    }
    *(const char **)f->into = text;
    return -1;
}

static int take_number(const cli_command *c, const cli_flag *f, const char *what,
                       const char *text) {
    static const char units[] = "kKmMgG";
    char             *end;
    double            v;
    const char       *unit;

    errno = 0;
    v = strtod(text, &end);
    if (f->kind == CLI_SIZE && *end && end > text && (unit = strchr(units, *end))) {
        v *= (double)(1LL << 10 * ((unit - units) / 2 + 1));
        end++;
    }
    if (!*text || *end || errno || !(v >= f->lo && v <= f->hi) ||
        (f->kind != CLI_REAL && v != floor(v)))
        return cli_fail(c->name, EXIT_USAGE, "%s \"%s\": a %s from %.15g to %.15g is needed", what,
                        text, f->kind == CLI_REAL ? "number" : "whole number", f->lo, f->hi);
    if (f->kind == CLI_REAL)
        *(double *)f->into = v;
    else if (f->kind == CLI_INT32)
        *(int32_t *)f->into = (int32_t)v;
    else
        *(int64_t *)f->into = (int64_t)v;
    return -1;
}

static int take(const cli_command *c, const cli_flag *f, const char *what, const char *text) {
    cli_list *l = f->into;

    switch (f->kind) {
    case CLI_TEXT:
        *(const char **)f->into = text;
        return -1;
    case CLI_WORD:
    case CLI_WORDS:
        return take_words(c, f, what, text);
    case CLI_LIST:
        if (l->n == (int)(sizeof l->item / sizeof l->item[0]))
            return cli_fail(c->name, EXIT_USAGE, "%s: given more than %d times", what, l->n);
        l->item[l->n++] = text;
        return -1;
    default:
        return take_number(c, f, what, text);
    }
}

int cli_environment(const cli_command *c) {
    cli_flag all[MAX_FLAGS];
    int      n = collect(c, all);

    for (int i = 0; i < n; i++) {
        char        name[64] = "RERANK_";
        const char *text;
        size_t      at = strlen(name);
        int         code;

        if (all[i].kind == CLI_TITLE || all[i].kind == CLI_BOOL)
            continue;
        for (const char *p = all[i].name; *p && at + 1 < sizeof name; p++)
            name[at++] = (char)(*p == '-' ? '_' : *p >= 'a' ? *p - 'a' + 'A' : *p);
        text = getenv(name);
        code = text && *text ? take(c, &all[i], name, text) : -1;
        if (code >= 0)
            return code;
    }
    return -1;
}

int cli_parse(const cli_command *c, int argc, char **argv, cli_rest *rest) {
    cli_flag all[MAX_FLAGS];
    int      n = collect(c, all), only_rest = 0, code = -1;

    *rest = (cli_rest){argv, 0};
    for (int i = 1; i < argc && code < 0; i++) {
        char           *a = argv[i], name[64], what[72];
        const char     *value = NULL;
        const cli_flag *f = NULL;
        size_t          len;

        if (only_rest || a[0] != '-' || a[1] == '\0') {
            rest->arg[rest->n++] = a;
            continue;
        }
        if (strcmp(a, "--") == 0) {
            only_rest = 1;
            continue;
        }
        if (strcmp(a, "-h") == 0 || strcmp(a, "--help") == 0) {
            help(c, all, n);
            return EXIT_OK;
        }
        len = strcspn(a + 2, "=");
        if (a[1] == '-') {
            snprintf(name, sizeof name, "%.*s", (int)(len < 63 ? len : 63), a + 2);
            value = a[2 + len] == '=' ? a + 3 + len : NULL;
            for (int k = 0; k < n && !f; k++)
                if (all[k].kind != CLI_TITLE && strcmp(all[k].name, name) == 0)
                    f = &all[k];
        } else {
            snprintf(name, sizeof name, "%.60s", a + 1);
            value = a[2] ? a + 2 : NULL;
            for (int k = 0; k < n && !f; k++)
                if (all[k].letter == a[1])
                    f = &all[k];
        }
        if (!f)
            return unknown(c, all, n, name);
        if (f->kind == CLI_BOOL) {
            if (value)
                return cli_fail(c->name, EXIT_USAGE, "--%s takes no value", f->name);
            *(int *)f->into = 1;
            continue;
        }
        if (!value && i + 1 >= argc)
            return cli_fail(c->name, EXIT_USAGE, "--%s needs a value (%s)", f->name, f->arg);
        snprintf(what, sizeof what, "--%s", f->name);
        code = take(c, f, what, value ? value : argv[++i]);
    }
    return code;
}

/* ---- model and engine ----------------------------------------------------- */

const char *cli_model_dir(const cli_common *c) {
    static char              found[PATH_MAX];
    static const char *const beside[] = {"../share/rerank/models/mini", "../models/mini",
                                         "../../models/mini"};
    const char              *env = getenv("RERANK_MODEL");
    char                     exe[4096];
    ssize_t                  n;

    if (c->model)
        return c->model;
    if (env && *env)
        return env;
    n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        char *slash;

        exe[n] = '\0';
        slash = strrchr(exe, '/');
        for (size_t i = 0; slash && i < sizeof beside / sizeof beside[0]; i++) {
            char dir[sizeof found], config[sizeof found + 16];

            slash[1] = '\0';
            snprintf(dir, sizeof dir, "%s%s", exe, beside[i]);
            snprintf(config, sizeof config, "%s/config.json", dir);
            if (access(config, R_OK) == 0 && realpath(dir, found))
                return found;
        }
    }
    return "models/mini";
}

cli_common cli_side(cli_common c) {
    if (!c.precision || (strcmp(c.precision, "int8") != 0 && strcmp(c.precision, "fp8") != 0))
        c.calibration = NULL;
    if (!trt_chosen(&c)) {
        c.engine = NULL;
        c.rebuild = 0;
    }
    return c;
}

void cli_engine_opts(const cli_common *c, rr_engine_opts *o) {
    const int trt = trt_chosen(c);

    *o = (rr_engine_opts){.backend = trt ? "trt" : c->backend,
                          .precision = c->precision,
                          .devices = c->devices,
                          .plan_path = trt ? c->engine : NULL,
                          .calibration_path = trt ? NULL : c->calibration,
                          .threads = (int32_t)c->threads,
                          .max_length = (int32_t)c->max_length,
                          .max_batch_tokens = (int32_t)c->max_batch_tokens,
                          .fast = c->fast,
                          .max_queue_tokens = INT32_MAX /* nobody else waits */};
    if (!c->truncation || strcmp(c->truncation, "only_second") == 0)
        o->truncation = RR_TRUNC_ONLY_SECOND;
    else if (strcmp(c->truncation, "longest_first") == 0)
        o->truncation = RR_TRUNC_LONGEST_FIRST;
    else
        o->truncation = RR_TRUNC_ERROR;
    o->side = c->side && strcmp(c->side, "left") == 0 ? RR_SIDE_LEFT : RR_SIDE_RIGHT;
}

rr_status cli_open(const cli_common *c, rr_model **model, rr_engine **engine, rr_error *err) {
    rr_engine_opts o;
    rr_status      s;

    *model = NULL;
    *engine = NULL;
    cli_engine_opts(c, &o);
    s = trt_ready(c, err);
    if (!s)
        s = rr_model_open(cli_model_dir(c), model, err);
    if (!s)
        s = rr_engine_open(*model, &o, engine, err);
    if (s) {
        rr_model_close(*model);
        *model = NULL;
    }
    return s;
}
