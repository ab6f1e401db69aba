/* gpu_engine.c - the CUDA backend alone: the shapes of docs/SPEED.md timed, logits against the
 * model folder's truth.safetensors, and bits alone against bits in company.
 *
 *     gpu_engine MODEL_DIR [fp16,fp8,...] [case]     one line a result; exit 1 if a promise fails: the
 *                                                    same bits; fp16 within 2e-3 of the truth
 *     gpu_engine MODEL_DIR fp16,fp8 checks           no timing
 *     gpu_engine MODEL_DIR fp16,fp8 all fast         with --fast: bits may differ in company
 *
 * Times are of rr__backend.score by the wall clock: upload, pass, download and the wait. */
#define _DEFAULT_SOURCE
#include "backend/backend.h"
#include "base/clock.h"
#include "base/file.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 20, WARM = 5, MOST_TOKENS = 51200, N_RAGGED = 100 };

/* The lengths bench/gpu_torch_*.py draw: 17,996 tokens. */
static const int32_t ragged[N_RAGGED] = {
    230, 158, 334, 294, 130, 332, 96,  140, 111, 93,  350, 191, 89,  352, 348, 448, 97,
    162, 84,  269, 75,  304, 127, 166, 165, 158, 140, 181, 292, 259, 215, 185, 94,  309,
    178, 175, 161, 127, 177, 198, 71,  32,  194, 227, 54,  134, 76,  100, 238, 112, 71,
    144, 162, 289, 43,  48,  239, 301, 71,  123, 97,  83,  39,  245, 174, 245, 132, 63,
    146, 47,  105, 39,  101, 129, 483, 315, 512, 53,  59,  95,  273, 311, 278, 126, 415,
    69,  104, 255, 175, 88,  402, 358, 54,  194, 85,  381, 99,  56,  290, 98};

typedef struct workload {
    const char *name;
    int32_t     n_seq, len; /* len 0: ragged */
} workload;

static const workload cases[] = {
    {"1x64", 1, 64},     {"1x128", 1, 128},          {"1x512", 1, 512},
    {"8x512", 8, 512},   {"ragged100", N_RAGGED, 0}, {"100x512", 100, 512},
    {"1x8192", 1, 8192},
};
enum { N_CASE = sizeof cases / sizeof *cases, RAGGED = 4 };

typedef struct engine {
    const rr__backend *b;
    rr__model         *m;
    void              *weights, *instance;
    const char        *precision;
    int                bad, fast;
} engine;

static void fail(const char *what, const rr_error *err) {
    fprintf(stderr, "%s: %s\n", what, err->text);
    exit(1);
}

static rr__batch make_batch(const workload *c, const rr__model *m) {
    int32_t  *cu = calloc((size_t)c->n_seq + 1, sizeof *cu), *tok;
    rr__batch b = {.n_seq = c->n_seq, .cu = cu};
    uint32_t  seed = 1;

    for (int32_t i = 0; i < c->n_seq; i++) {
        int32_t len = c->len ? c->len : ragged[i];

        cu[i + 1] = cu[i] + len;
        b.max_len = len > b.max_len ? len : b.max_len;
    }
    b.n_tok = cu[c->n_seq];
    b.tok = tok = calloc((size_t)b.n_tok, sizeof *tok);
    for (int32_t t = 0; t < b.n_tok; t++) {
        seed = seed * 1664525u + 1013904223u;
        tok[t] = 5 + (int32_t)((seed >> 8) % (uint32_t)(m->vocab_size - 5));
    }
    return b;
}

static void free_batch(rr__batch *b) {
    free((void *)b->tok);
    free((void *)b->cu);
}

static void score(engine *e, const rr__batch *b, float *logits) {
    rr_error err = {0};

    if (e->b->score(e->instance, b, logits, &err) != RR_OK)
        fail("score", &err);
}

static int rising(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void time_case(engine *e, const workload *c) {
    rr__batch b = make_batch(c, e->m);
    float    *logits = calloc((size_t)b.n_seq, sizeof *logits);
    int64_t   ns[RUNS];

    for (int i = -WARM; i < RUNS; i++) {
        int64_t start = rr__now_ns();

        score(e, &b, logits);
        if (i >= 0)
            ns[i] = rr__now_ns() - start;
    }
    qsort(ns, RUNS, sizeof *ns, rising);
    printf("time %-10s %-5s tokens %5d  %8.3f ms  %7.0f pairs/s\n", c->name, e->precision,
           (int)b.n_tok, ns[RUNS / 2] / 1e6, b.n_seq * 1e9 / (double)ns[RUNS / 2]);
    fflush(stdout);
    free(logits);
    free_batch(&b);
}

/* Every tenth sequence alone must give the bits it has among the hundred. */
static void check_bits(engine *e) {
    rr__batch b = make_batch(&cases[RAGGED], e->m);
    float     all[N_RAGGED], one;
    int       differ = 0;

    score(e, &b, all);
    for (int32_t i = 0; i < b.n_seq; i += 10) {
        int32_t   cu[2] = {0, b.cu[i + 1] - b.cu[i]};
        rr__batch alone = {1, cu[1], cu[1], b.tok + b.cu[i], cu, NULL};

        score(e, &alone, &one);
        differ += memcmp(&one, &all[i], sizeof one) != 0;
    }
    printf("bits %s: %d of 10 differ between alone and in company\n", e->precision, differ);
    e->bad |= differ != 0 && !e->fast;
    free_batch(&b);
}

/* Copies, because a tensor in a file is not aligned. */
static void *copy_of(const rr__st_tensor *t) {
    void *p = t ? malloc(t->bytes) : NULL;

    return p ? memcpy(p, t->data, t->bytes) : NULL;
}

/* Against what Hugging Face computed in fp32, if the folder has it. */
static void check_truth(engine *e, const char *dir) {
    char      path[4096];
    rr__file  file = {0};
    rr__arena arena = {0};
    rr__st    st = {0};
    rr_error  err = {0};
    rr__batch b = {.max_len = e->m->max_length};
    int32_t  *tok, *cu;
    float    *want, *got;
    double    top = 0, diff = 0, norm = 0, mean = 0, spread = 0;
    int32_t   longest = 0;

    snprintf(path, sizeof path, "%s/truth.safetensors", dir);
    if (rr__file_map(path, &file, NULL) != RR_OK)
        return;
    if (rr__st_parse(path, file.ptr, file.size, &arena, &st, &err) != RR_OK)
        fail("truth", &err);
    tok = copy_of(rr__st_find(&st, "ids"));
    cu = copy_of(rr__st_find(&st, "cu"));
    want = copy_of(rr__st_find(&st, "logits"));
    if (!tok || !cu || !want)
        fail("truth: a tensor is missing", &err);
    b.n_seq = (int32_t)(rr__st_find(&st, "logits")->bytes / sizeof *want);
    b.n_tok = cu[b.n_seq];
    b.tok = tok, b.cu = cu;
    got = calloc((size_t)b.n_seq, sizeof *got);
    score(e, &b, got);
    for (int32_t i = 0; i < b.n_seq; i++)
        mean += (double)want[i] / b.n_seq;
    for (int32_t i = 0; i < b.n_seq; i++) {
        double x = (double)got[i] - want[i];

        longest = cu[i + 1] - cu[i] > cu[longest + 1] - cu[longest] ? i : longest;
        top = fabs(x) > top ? fabs(x) : top;
        diff += x * x;
        norm += (double)want[i] * want[i];
        spread += (want[i] - mean) * (want[i] - mean);
    }
    printf("truth %s: %d logits, relative L2 %.2e, largest error %.2e, logits spread %.2g; "
           "%d tokens: error %.2e\n",
           e->precision, (int)b.n_seq, sqrt(diff / norm), top, sqrt(spread / b.n_seq),
           (int)(cu[longest + 1] - cu[longest]), fabs((double)got[longest] - want[longest]));
    e->bad |= isnan(diff);
    if (rr__precision_parse(e->precision) == RR__FP16)
        e->bad |= sqrt(diff / norm) > 2e-3;
    free(got), free(want), free_batch(&b);
    rr__arena_free(&arena);
    rr__file_unmap(&file);
}

static void run(engine *e, const char *dir, const char *only) {
    rr__backend_opts o = {.precision = rr__precision_parse(e->precision),
                          .max_batch_tokens = MOST_TOKENS,
                          .max_batch_seqs = 1024,
                          .fast = e->fast};
    rr__backend_info info;
    rr_error         err = {0};
    int64_t          start = rr__now_ns(), loaded;

    if (e->b->load(e->m, &o, &e->weights, &err) != RR_OK)
        fail("load", &err);
    loaded = rr__now_ns();
    if (e->b->open(e->weights, &e->instance, &err) != RR_OK)
        fail("open", &err);
    e->b->describe(e->weights, &info);
    printf("%s %s: load %.2f s, open %.2f s, weights %.0f MB, instance %.0f MB at %d tokens\n",
           info.device, e->precision, (loaded - start) / 1e9, (rr__now_ns() - loaded) / 1e9,
           info.weight_bytes / 1e6, info.instance_bytes / 1e6, (int)o.max_batch_tokens);
    if (!only || strcmp(only, "checks") == 0) {
        check_truth(e, dir);
        check_bits(e);
    }
    for (int i = 0; i < N_CASE; i++)
        if (!only || strcmp(only, cases[i].name) == 0)
            time_case(e, &cases[i]);
    e->b->close(e->instance);
    e->b->unload(e->weights);
}

int main(int argc, char **argv) {
    char     list[64], *rest = list;
    engine   e = {0};
    rr_error err = {0};

    if (argc < 2) {
        fprintf(stderr,
                "usage: gpu_engine MODEL_DIR [fp16,fp8,...] [case | checks | all] [fast]\n");
        return 2;
    }
    snprintf(list, sizeof list, "%s", argc > 2 ? argv[2] : "fp16,fp8");
    if (rr__backend_find("cuda", &e.b, &err) != RR_OK)
        fail("cuda", &err);
    if (rr__model_open(argv[1], &e.m, &err) != RR_OK)
        fail(argv[1], &err);
    e.fast = argc > 4 && strcmp(argv[4], "fast") == 0;
    while ((e.precision = strsep(&rest, ",")))
        run(&e, argv[1], argc > 3 && strcmp(argv[3], "all") != 0 ? argv[3] : NULL);
    rr__model_close(e.m);
    return e.bad;
}
