/* test_cuda.c - what only the CUDA backend promises: refusals that say why, memory within its
 * limit, weights shared by instances, every activation near ref's, no NaN where fp16 overflows, two
 * cards at once. Agreement of logits and bits is test_backends' work. Needs a card; without one all
 * but the first test skip. */
#include "card.h"

#include <pthread.h>
#include <semaphore.h>

extern const rr__backend rr__backend_ref;

static const char *const tiny = "tests/data/tiny-xlmr";
static const char *const tiny_truth = "tests/data/tiny-xlmr/truth.safetensors";

Test(cuda, runs_or_says_why) {
    const rr__backend *b = NULL;
    rr_error           err = {0};
    rr_status          s = rr__backend_find("cuda", &b, &err);

    if (s == RR_OK)
        cr_assert_str_eq(b->name, "cuda");
    else
        cr_assert(s == RR_E_UNSUPPORTED && strstr(err.text, "cuda"), "%s", err.text);
}

static rr__backend_opts options(rr__precision precision) {
    return (rr__backend_opts){
        .precision = precision, .max_batch_tokens = 4096, .max_batch_seqs = 64};
}

Test(cuda, refuses_what_does_not_fit_with_the_numbers) {
    NEED_CARD(b);
    truth            t;
    rr__backend_opts o = options(RR__FP16);
    rr__backend_info info;
    rr_error         err = {0};
    void            *w = NULL, *first = NULL, *second = NULL;

    truth_open(&t, tiny, tiny_truth);
    o.memory_limit = 1000000;
    cr_assert_eq(b->load(t.model, &o, &w, &err), RR_E_NOMEM);
    cr_assert(strstr(err.text, "the 1 MB allowed"), "%s", err.text);
    o.memory_limit = 0;
    cr_assert_eq(b->load(t.model, &o, &w, &err), RR_OK, "%s", err.text);
    b->describe(w, &info);
    b->unload(w);

    /* Room for the weights and one instance and a half. */
    o.memory_limit = info.weight_bytes + info.instance_bytes * 3 / 2;
    cr_assert_eq(b->load(t.model, &o, &w, &err), RR_OK, "%s", err.text);
    cr_assert_eq(b->open(w, &first, &err), RR_OK, "%s", err.text);
    cr_assert_eq(b->open(w, &second, &err), RR_E_NOMEM);
    b->close(first);
    cr_assert_eq(b->open(w, &second, &err), RR_OK, "%s", err.text);
    b->close(second);
    b->unload(w);
    truth_close(&t);
}

Test(cuda, refuses_a_device_that_is_not_there) {
    NEED_CARD(b);
    truth            t;
    rr__backend_opts o = options(RR__FP16);
    rr_error         err = {0};
    void            *w = NULL;

    truth_open(&t, tiny, tiny_truth);
    o.device = 1000;
    cr_assert_eq(b->load(t.model, &o, &w, &err), RR_E_ARG);
    cr_assert(strstr(err.text, "no device 1000"), "%s", err.text);
    truth_close(&t);
}

Test(cuda, instances_share_the_weights_and_agree) {
    NEED_CARD(b);
    truth            t;
    rr__backend_opts o = options(RR__FP16);
    rr_error         err = {0};
    void            *w = NULL, *one = NULL, *two = NULL;
    float            x[20], y[20];

    truth_open(&t, tiny, tiny_truth);
    rr__batch batch = truth_batch(&t, 0, 20);
    cr_assert_eq(b->load(t.model, &o, &w, &err), RR_OK, "%s", err.text);
    cr_assert_eq(b->open(w, &one, &err), RR_OK, "%s", err.text);
    cr_assert_eq(b->open(w, &two, &err), RR_OK, "%s", err.text);
    cr_assert_eq(b->score(one, &batch, x, &err), RR_OK, "%s", err.text);
    b->close(one);
    cr_assert_eq(b->score(two, &batch, y, &err), RR_OK, "%s", err.text);
    cr_assert_eq(memcmp(x, y, sizeof x), 0);
    b->close(two);
    b->unload(w);
    free((void *)batch.cu);
    truth_close(&t);
}

/* ---- every activation ---------------------------------------------------------- */

enum { MOST_SHOWN = 64 };
typedef struct shown {
    int32_t n;
    struct {
        char    name[32];
        int32_t rows, cols;
        float  *data;
    } a[MOST_SHOWN];
} shown;

static void keep(void *user, const rr__activation *a) {
    shown *s = user;

    cr_assert_lt(s->n, MOST_SHOWN);
    snprintf(s->a[s->n].name, sizeof s->a[s->n].name, "%s", a->name);
    s->a[s->n].rows = a->rows, s->a[s->n].cols = a->cols;
    s->a[s->n].data = malloc((size_t)a->rows * (size_t)a->cols * sizeof(float));
    memcpy(s->a[s->n++].data, a->data, (size_t)a->rows * (size_t)a->cols * sizeof(float));
}

static void drop(shown *s) {
    for (int32_t i = 0; i < s->n; i++)
        free(s->a[i].data);
}

/* Relative L2 distance of what i showed from what ref showed under the same name; where a backend
 * shows one row a sequence, from ref's rows of the first tokens. */
static double distance(const shown *s, int32_t i, const shown *ref, const rr__batch *b) {
    double  diff = 0, norm = 0;
    int32_t j = 0;

    while (j < ref->n && strcmp(ref->a[j].name, s->a[i].name) != 0)
        j++;
    cr_assert_lt(j, ref->n, "ref shows no %s", s->a[i].name);
    cr_assert_eq(s->a[i].cols, ref->a[j].cols);
    for (int32_t r = 0; r < s->a[i].rows; r++) {
        int32_t at = s->a[i].rows == ref->a[j].rows ? r : b->cu[r];

        for (int32_t k = 0; k < s->a[i].cols; k++) {
            double want = ref->a[j].data[(size_t)at * s->a[i].cols + k];
            double got = s->a[i].data[(size_t)r * s->a[i].cols + k];

            diff += (got - want) * (got - want);
            norm += want * want;
        }
    }
    return sqrt(diff / norm);
}

Test(cuda, every_activation_is_near_refs) {
    NEED_CARD(b);
    static const double near[RR__N_PRECISION] = {[RR__FP32] = 3e-3,
                                                 [RR__BF16] = 3e-2,
                                                 [RR__FP16] = 5e-3,
                                                 [RR__INT8] = 1e-1,
                                                 [RR__FP8] = 3e-1};
    truth               t;
    opened              ref, o;
    shown               want = {0}, got;
    float               logits[8];
    rr_error            err = {0};
    rr__batch           batch;

    truth_open(&t, tiny, tiny_truth);
    batch = truth_batch(&t, 0, 8);
    backend_open(&ref, &rr__backend_ref, t.model, RR__FP32, NULL, 1);
    cr_assert_eq(ref.backend->observe(ref.instance, &batch, logits, keep, &want, &err), RR_OK);
    backend_close(&ref);
    for (int p = RR__FP32; p < RR__N_PRECISION; p++) {
        if (p == RR__FP8 &&
            b->load(t.model,
                    &(rr__backend_opts){
                        .precision = RR__FP8, .max_batch_tokens = 1, .max_batch_seqs = 1},
                    &o.weights, &err) != RR_OK)
            continue; /* an Ampere card */
        if (p == RR__FP8)
            b->unload(o.weights);
        got.n = 0;
        backend_open(&o, b, t.model, (rr__precision)p, NULL, 1);
        cr_assert_eq(b->observe(o.instance, &batch, logits, keep, &got, &err), RR_OK, "%s",
                     err.text);
        backend_close(&o);
        cr_expect_eq(got.n, 2 + 7 * t.model->n_layer); /* no q of every token in the last */
        for (int32_t i = 0; i < got.n; i++) {
            double d = distance(&got, i, &want, &batch);

            cr_expect(d <= near[p], "%s: %s is off by %.2g", rr__precision_name((rr__precision)p),
                      got.a[i].name, d);
        }
        drop(&got);
    }
    drop(&want);
    free((void *)batch.cu);
    truth_close(&t);
}

/* ---- batches that are cut ------------------------------------------------------- */

/* The first sequences of the truth file again and again, as many as fit in n tokens. */
static rr__batch repeated(const truth *t, int32_t n) {
    int32_t  *tok = malloc((size_t)n * sizeof *tok), *cu = calloc((size_t)n + 1, sizeof *cu);
    rr__batch b = {.tok = tok, .cu = cu};

    for (int32_t i = 0;; i = (i + 1) % 16) {
        const int32_t len = t->cu[i + 1] - t->cu[i];

        if (b.n_tok + len > n)
            break;
        memcpy(tok + b.n_tok, t->ids + t->cu[i], (size_t)len * sizeof *tok);
        b.n_tok += len;
        b.max_len = len > b.max_len ? len : b.max_len;
        cu[++b.n_seq] = b.n_tok;
    }
    return b;
}

/* Room for 4,096 tokens; beyond 3,584 a batch goes through attention in two parts. */
Test(cuda, a_batch_in_two_parts_has_the_same_bits) {
    NEED_CARD(b);
    truth    t;
    rr_error err = {0};

    truth_open(&t, tiny, tiny_truth);
    for (int p = RR__FP32; p < RR__N_PRECISION; p++) {
        rr__backend_opts opts = options((rr__precision)p);
        rr__batch        full = repeated(&t, 4096), few = truth_batch(&t, 0, 16);
        float           *all = malloc((size_t)full.n_seq * sizeof *all), some[16];
        opened           o = {.backend = b};
        shown            got = {0};

        opts.max_batch_seqs = 4096;
        cr_assert_gt(full.n_tok, 3584);
        if (b->load(t.model, &opts, &o.weights, &err) != RR_OK) {
            cr_expect_eq(p, RR__FP8, "%s", err.text); /* an Ampere card */
            continue;
        }
        cr_assert_eq(b->open(o.weights, &o.instance, &err), RR_OK, "%s", err.text);
        backend_score(&o, &few, some);
        backend_score(&o, &full, all);
        for (int32_t i = 0; i < full.n_seq; i++)
            cr_expect_eq(memcmp(&all[i], &some[i % 16], sizeof *all), 0, "%s: sequence %d of %d",
                         rr__precision_name((rr__precision)p), (int)i, (int)full.n_seq);
        /* Shown, every activation has all its rows, those of the same sequence alike. */
        cr_assert_eq(b->observe(o.instance, &full, all, keep, &got, &err), RR_OK, "%s", err.text);
        for (int32_t i = 0; i < got.n; i++) {
            const size_t  cols = (size_t)got.a[i].cols, size = cols * sizeof(float);
            const int32_t again = full.cu[16 * (full.n_seq / 16 - 1)], len = full.cu[16];

            if (got.a[i].rows != full.n_tok)
                continue; /* of the last layer */
            for (int32_t r = 0; r < len; r++)
                cr_expect_eq(memcmp(got.a[i].data + (size_t)r * cols,
                                    got.a[i].data + (size_t)(again + r) * cols, size),
                             0, "%s: %s row %d", rr__precision_name((rr__precision)p),
                             got.a[i].name, (int)r);
        }
        drop(&got);
        backend_close(&o);
        free(all);
        free((void *)full.tok);
        free((void *)full.cu);
        free((void *)few.cu);
    }
    truth_close(&t);
}

/* ---- fast -------------------------------------------------------------------------- */

/* Split sums round elsewhere, not worse, and the same at every call. fp32 and int8 split none. */
Test(cuda, fast_differs_in_rounding_only) {
    NEED_CARD(b);
    static const double near[RR__N_PRECISION] = {
        [RR__FP32] = 0, [RR__FP16] = 2e-2, [RR__BF16] = 1e-1, [RR__INT8] = 0, [RR__FP8] = 1};
    enum { PAIRS = 4 };
    truth    t;
    rr_error err = {0};

    truth_open(&t, "models/mini", "tests/data/mini-truth.safetensors");
    for (int p = RR__FP32; p < RR__N_PRECISION; p++) {
        rr__backend_opts opts = options((rr__precision)p);
        rr__batch        few = truth_batch(&t, 0, PAIRS);
        float            exact[PAIRS], fast[PAIRS], again[PAIRS];
        opened           o = {.backend = b};

        cr_assert_leq(few.n_tok, 704);     /* of these, products with 384 outputs are split */
        opts.max_batch_tokens = few.n_tok; /* the feed-forward goes in two pieces then */
        for (opts.fast = 0; opts.fast < 2; opts.fast++) {
            if (b->load(t.model, &opts, &o.weights, &err) != RR_OK) {
                cr_expect_eq(p, RR__FP8, "%s", err.text); /* an Ampere card */
                break;
            }
            cr_assert_eq(b->open(o.weights, &o.instance, &err), RR_OK, "%s", err.text);
            backend_score(&o, &few, opts.fast ? fast : exact);
            backend_score(&o, &few, again);
            cr_expect_eq(memcmp(again, opts.fast ? fast : exact, sizeof again), 0);
            backend_close(&o);
        }
        for (int i = 0; i < PAIRS && opts.fast == 2; i++) {
            fprintf(stderr, "%s: %.6g, fast %.6g\n", rr__precision_name((rr__precision)p), exact[i],
                    fast[i]);
            cr_expect_leq(fabs((double)exact[i] - fast[i]), near[p]);
        }
        free((void *)few.cu);
    }
    truth_close(&t);
}

/* ---- two batches under way ------------------------------------------------------- */

enum { ROUNDS = 60, KINDS = 4 };
typedef struct pipe_line {
    opened    o;
    rr__batch b[KINDS];
    float     want[KINDS][512];
    sem_t     started, room;
    int       wrong;
} pipe_line;

static void *finish_all(void *arg) {
    pipe_line *p = arg;

    for (int i = 0; i < ROUNDS; i++) {
        float    got[512];
        rr_error err = {0};

        sem_wait(&p->started);
        if (p->o.backend->finish(p->o.instance, got, &err) != RR_OK ||
            memcmp(got, p->want[i % KINDS], (size_t)p->b[i % KINDS].n_seq * sizeof *got) != 0)
            p->wrong++;
        sem_post(&p->room);
    }
    return NULL;
}

/* Batches of graphs and large ones, one started while another runs, have the bits of score. */
Test(cuda, two_batches_under_way_keep_apart) {
    NEED_CARD(b);
    truth            t;
    pipe_line        p = {.o = {.backend = b}};
    rr__backend_opts opts = options(RR__FP16);
    rr_error         err = {0};
    pthread_t        finisher;
    float            one[64];

    truth_open(&t, tiny, tiny_truth);
    opts.max_batch_seqs = 512;
    cr_assert_eq(b->load(t.model, &opts, &p.o.weights, &err), RR_OK, "%s", err.text);
    cr_assert_eq(b->open(p.o.weights, &p.o.instance, &err), RR_OK, "%s", err.text);
    p.b[0] = repeated(&t, 2500);
    p.b[1] = truth_batch(&t, 0, 3);
    p.b[2] = repeated(&t, 4000);
    p.b[3] = truth_batch(&t, 3, 9);
    for (int k = 0; k < KINDS; k++) {
        cr_assert_leq(p.b[k].n_seq, 512);
        backend_score(&p.o, &p.b[k], p.want[k]);
    }
    sem_init(&p.started, 0, 0);
    sem_init(&p.room, 0, 2);
    pthread_create(&finisher, NULL, finish_all, &p);
    for (int i = 0; i < ROUNDS; i++) {
        sem_wait(&p.room);
        cr_assert_eq(b->start(p.o.instance, &p.b[i % KINDS], &err), RR_OK, "%s", err.text);
        sem_post(&p.started);
    }
    pthread_join(finisher, NULL);
    cr_expect_eq(p.wrong, 0);

    /* Out of turn. */
    cr_expect_eq(b->finish(p.o.instance, one, &err), RR_E_ARG);
    cr_expect_eq(b->start(p.o.instance, &p.b[1], &err), RR_OK);
    cr_expect_eq(b->score(p.o.instance, &p.b[1], one, &err), RR_E_ARG);
    cr_expect_eq(b->start(p.o.instance, &p.b[3], &err), RR_OK);
    cr_expect_eq(b->start(p.o.instance, &p.b[3], &err), RR_E_ARG);
    cr_expect_eq(b->finish(p.o.instance, one, &err), RR_OK);
    cr_expect_eq(memcmp(one, p.want[1], 3 * sizeof *one), 0);
    cr_expect_eq(b->finish(p.o.instance, one, &err), RR_OK);
    cr_expect_eq(memcmp(one, p.want[3], 9 * sizeof *one), 0);
    backend_close(&p.o);
    for (int k = 0; k < KINDS; k++)
        free((void *)p.b[k].cu);
    free((void *)p.b[0].tok);
    free((void *)p.b[2].tok);
    truth_close(&t);
}

/* ---- memory --------------------------------------------------------------------- */

static rr__tensor zeros(const void *room, int64_t rows, int64_t cols) {
    return (rr__tensor){.data = room,
                        .dtype = RR__DT_F16,
                        .rank = cols ? 2 : 1,
                        .shape = {rows, cols},
                        .bytes = (size_t)rows * (size_t)(cols ? cols : 1) * 2,
                        .name = "zeros"};
}

/* One layer of bge-reranker-v2-m3's shape: an instance's memory does not depend on their number. */
Test(cuda, an_instance_takes_less_than_150_mb_at_16384_tokens) {
    NEED_CARD(b);
    enum { D = 1024, F = 4096, POSITIONS = 8194, WORDS = 1000 };
    void      *room = calloc((size_t)POSITIONS * D, 2);
    rr__tensor dd = zeros(room, D, D), d = zeros(room, D, 0);
    rr__layer  layer = {
         dd, dd, dd, dd, d, d, d, d, d, d, zeros(room, F, D), zeros(room, F, 0), zeros(room, D, F),
         d,  d,  d};
    rr__model                  m = {.dir = "",
                                    .n_layer = 1,
                                    .d_model = D,
                                    .n_head = 16,
                                    .d_ff = F,
                                    .vocab_size = WORDS,
                                    .n_pos = POSITIONS,
                                    .pos_offset = 2,
                                    .n_type = 1,
                                    .max_length = POSITIONS - 2,
                                    .pad_id = 1,
                                    .ln_eps = 1e-5f,
                                    .tok_emb = zeros(room, WORDS, D),
                                    .pos_emb = zeros(room, POSITIONS, D),
                                    .type_emb = zeros(room, 1, D),
                                    .emb_g = d,
                                    .emb_b = d,
                                    .layer = &layer,
                                    .head_w = dd,
                                    .head_b = d,
                                    .out_w = zeros(room, 1, D),
                                    .out_b = zeros(room, 1, 0)};
    static const rr__precision asked[] = {RR__FP16, RR__BF16, RR__INT8, RR__FP8};

    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        rr__backend_opts o = {
            .precision = asked[i], .max_batch_tokens = 16384, .max_batch_seqs = 1024};
        rr__backend_info info;
        rr_error         err = {0};
        void            *w = NULL, *r = NULL;

        if (b->load(&m, &o, &w, &err) != RR_OK) {
            cr_expect_eq(asked[i], RR__FP8, "%s", err.text); /* an Ampere card */
            continue;
        }
        b->describe(w, &info);
        fprintf(stderr, "%s: %.1f MB an instance of 16,384 tokens\n", rr__precision_name(asked[i]),
                info.instance_bytes / 1e6);
        cr_expect_lt(info.instance_bytes, 150e6);
        cr_expect_eq(b->open(w, &r, &err), RR_OK, "%s", err.text);
        b->close(r);
        b->unload(w);
    }
    free(room);
}

/* ---- large activations ---------------------------------------------------------- */

/* A bias with some entries of +-6e4, which fp16 holds but no sum of two of them. */
static rr__tensor spiked(const rr__tensor *t, float *room, float spike) {
    rr__tensor out = *t;
    int32_t    n = (int32_t)t->shape[0];

    rr__tensor_f32(t, 0, (size_t)n, room);
    for (int32_t i = 3; i < n; i += 16)
        room[i] = i % 32 == 3 ? spike : -spike;
    out.data = room;
    out.dtype = RR__DT_F32;
    out.bytes = (size_t)n * sizeof *room;
    return out;
}

Test(cuda, activations_of_6e4_give_no_nan) {
    NEED_CARD(b);
    truth     t;
    opened    ref, o;
    rr__model m;
    float     room[3][256], want[8], got[8];
    rr_error  err = {0};
    rr__batch batch;

    truth_open(&t, tiny, tiny_truth);
    cr_assert(t.model->d_model <= 256 && t.model->d_ff <= 256);
    m = *t.model;
    m.layer = malloc((size_t)m.n_layer * sizeof *m.layer);
    memcpy(m.layer, t.model->layer, (size_t)m.n_layer * sizeof *m.layer);
    m.layer[0].bo = spiked(&m.layer[0].bo, room[0], 6e4f); /* the sum before ln1 */
    m.layer[0].b2 = spiked(&m.layer[0].b2, room[1], 6e4f); /* the sum before ln2 */
    m.layer[1].b1 = spiked(&m.layer[1].b1, room[2], 6e4f); /* mid, and the sum after it */
    batch = truth_batch(&t, 0, 8);
    backend_open(&ref, &rr__backend_ref, &m, RR__FP32, NULL, 1);
    backend_score(&ref, &batch, want);
    backend_close(&ref);
    for (int p = RR__FP32; p < RR__N_PRECISION; p++) {
        rr__backend_opts opts = options((rr__precision)p);

        o.backend = b;
        if (b->load(&m, &opts, &o.weights, &err) != RR_OK) {
            cr_expect_eq(p, RR__FP8, "%s", err.text); /* an Ampere card */
            continue;
        }
        cr_assert_eq(b->open(o.weights, &o.instance, &err), RR_OK, "%s", err.text);
        backend_score(&o, &batch, got);
        backend_close(&o);
        for (int i = 0; i < 8; i++) {
            cr_expect(isfinite(got[i]), "%s: logit %g", rr__precision_name((rr__precision)p),
                      (double)got[i]);
            if (p == RR__FP32 || p == RR__FP16)
                cr_expect_float_eq(got[i], want[i], 2e-2, "%s: logit %g, ref %g",
                                   rr__precision_name((rr__precision)p), (double)got[i],
                                   (double)want[i]);
        }
    }
    free(m.layer);
    free((void *)batch.cu);
    truth_close(&t);
}

/* ---- two cards ------------------------------------------------------------------- */

Test(cuda, two_cards_agree) {
    NEED_CARD(b);
    truth            t;
    rr__backend_opts o = options(RR__FP16);
    rr_error         err = {0};
    void            *w[2] = {NULL, NULL}, *r[2] = {NULL, NULL};
    float            x[2][20];
    rr__batch        batch;

    truth_open(&t, tiny, tiny_truth);
    o.device = 1;
    if (b->load(t.model, &o, &w[1], &err) != RR_OK) {
        truth_close(&t);
        fprintf(stderr, "skip: two cards: %s\n", err.text);
        cr_skip_test("one card");
    }
    o.device = 0;
    cr_assert_eq(b->load(t.model, &o, &w[0], &err), RR_OK, "%s", err.text);
    batch = truth_batch(&t, 0, 20);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(b->open(w[i], &r[i], &err), RR_OK, "%s", err.text);
        cr_assert_eq(b->score(r[i], &batch, x[i], &err), RR_OK, "%s", err.text);
    }
    for (int i = 0; i < 20; i++)
        cr_expect_float_eq(x[0][i], x[1][i], 2e-2);
    for (int i = 0; i < 2; i++) {
        b->close(r[i]);
        b->unload(w[i]);
    }
    free((void *)batch.cu);
    truth_close(&t);
}
