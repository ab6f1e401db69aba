/* test_instance.c - a batch through instance.c on a device made of host memory: what is sent, padded,
 * run and fetched, and when. The device does nothing before it is waited for, as a busy one may, so a
 * buffer written too early is seen; its "engine" is the ref backend over the visible tokens. That
 * TensorRT itself does what it is asked is tools/trt_check.sh's to show, on a card. */
#include "backend/trt/instance.h"

#include "backend/trt/group.h"
#include "backend/truth.h"

extern const rr__backend rr__backend_ref;

enum { MAX_OPS = 4096 };

/* ---- the device ------------------------------------------------------------------------------ */

typedef struct op {
    enum { TO_DEVICE, TO_HOST, RUN, EVENT } kind;
    void       *to;
    const void *from;
    size_t      size;
    int32_t     profile, rows, len;
} op;

static struct {
    op      ops[MAX_OPS];
    int     n, done;
    int     runs, live; /* passes; allocations not freed */
    int64_t cells;      /* of all passes                 */
    int     fail_alloc; /* this many succeed; -1 = all   */
} device;

struct rr__trt_context {
    int32_t        profile;
    rr__trt_memory m;
};

static opened          reference;
static rr__trt_weights weights;

/* Each row's visible tokens through ref; what is not visible must be padding, and no row may be empty. */
static void pass(const op *o) {
    const struct rr__trt_context *c = o->from;
    const rr__model              *model = weights.model;
    const int64_t                *ids = c->m.ids, *mask = c->m.mask, *types = c->m.types;
    const int32_t                 len = o->len;
    float                        *logits = c->m.logits;
    int32_t                      *tok = malloc((size_t)len * sizeof *tok);

    for (int32_t r = 0; r < o->rows; r++) {
        const int64_t *id = ids + (int64_t)r * len, *seen = mask + (int64_t)r * len;
        int32_t        cu[2] = {0, 0}, seg = 0;
        rr__batch      b = {.n_seq = 1, .tok = tok, .cu = cu, .seg = &seg};

        for (int32_t t = 0; t < len; t++) {
            cr_assert(seen[t] == 0 || seen[t] == 1);
            cr_assert(!t || seen[t] <= seen[t - 1], "a hole in the mask");
            cr_assert(seen[t] || id[t] == (model->pad_id >= 0 ? model->pad_id : 0));
            if (seen[t])
                tok[cu[1]++] = (int32_t)id[t];
            if (types && seen[t] && !types[(int64_t)r * len + t])
                seg = t + 1;
            cr_assert(!types || seen[t] || !types[(int64_t)r * len + t]);
        }
        cr_assert(cu[1] >= 1, "a row without a token");
        b.n_tok = b.max_len = cu[1];
        backend_score(&reference, &b, &logits[r]);
    }
    free(tok);
    device.runs++;
    device.cells += (int64_t)o->rows * len;
}

static void catch_up(int to) {
    for (; device.done < to; device.done++) {
        const op *o = &device.ops[device.done];

        if (o->kind == RUN)
            pass(o);
        else if (o->kind != EVENT)
            memcpy(o->to, o->from, o->size);
    }
}

static op *later(void) {
    cr_assert(device.n < MAX_OPS);
    device.ops[device.n] = (op){.kind = EVENT};
    return &device.ops[device.n++];
}

static int set_current(void *context) {
    return 0;
}
static int allocate(void **p, size_t size) {
    if (device.fail_alloc == 0)
        return 2;
    device.fail_alloc -= device.fail_alloc > 0;
    device.live++;
    *p = malloc(size); /* exactly so much: a sanitizer sees one byte beyond */
    return 0;
}
static int alloc(rr__devptr *p, size_t size) {
    void *q = NULL;
    int   s = allocate(&q, size);

    *p = (rr__devptr)(uintptr_t)q;
    return s;
}
static int host_alloc(void **p, size_t size, unsigned flags) {
    return allocate(p, size);
}
static int host_free(void *p) {
    device.live--;
    free(p);
    return 0;
}
static int release(rr__devptr p) {
    return host_free((void *)(uintptr_t)p);
}
static int to_device(rr__devptr to, const void *from, size_t size, void *stream) {
    *later() = (op){.kind = TO_DEVICE, .to = (void *)(uintptr_t)to, .from = from, .size = size};
    return 0;
}
static int to_host(void *to, rr__devptr from, size_t size, void *stream) {
    *later() = (op){.kind = TO_HOST, .to = to, .from = (void *)(uintptr_t)from, .size = size};
    return 0;
}
static int create(void **p, unsigned flags) {
    return allocate(p, sizeof(int));
}
static int stream_wait(void *stream) {
    catch_up(device.n);
    device.n = device.done = 0;
    return 0;
}
static int event_record(void *event, void *stream) {
    later();
    *(int *)event = device.n;
    return 0;
}
static int event_wait(void *event) {
    catch_up(*(int *)event);
    return 0;
}
static const char *const words = "out of memory";
static int               error_text(int status, const char **text) {
                  *text = words;
                  return 0;
}

static const rr__driver driver = {.error_text = error_text,
                                  .set_current = set_current,
                                  .alloc = alloc,
                                  .release = release,
                                  .host_alloc = host_alloc,
                                  .host_free = host_free,
                                  .to_device = to_device,
                                  .to_host = to_host,
                                  .stream_create = create,
                                  .stream_destroy = host_free,
                                  .stream_wait = stream_wait,
                                  .event_create = create,
                                  .event_destroy = host_free,
                                  .event_record = event_record,
                                  .event_wait = event_wait};

/* ---- what shim_run.cpp has for an engine ----------------------------------------------------- */

rr_status rr__trt_context_open(rr__trt_engine *engine, int32_t profile, const rr__trt_memory *m,
                               void *stream, rr__trt_context **out, rr_error *err) {
    *out = malloc(sizeof **out);
    **out = (struct rr__trt_context){profile, *m};
    return RR_OK;
}
void rr__trt_context_close(rr__trt_context *context) {
    free(context);
}
rr_status rr__trt_context_run(rr__trt_context *c, int32_t rows, int32_t len, void *stream,
                              rr_error *err) {
    const rr__trt_profile *p = &weights.info.profile[c->profile];

    cr_assert(rows >= p->min[0] && rows <= p->max[0] && len >= p->min[1] && len <= p->max[1]);
    *later() = (op){.kind = RUN, .from = c, .profile = c->profile, .rows = rows, .len = len};
    return RR_OK;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static const rr__trt_profile profiles[] = {
    {{1, 1}, {1, 16}, {1, 40}}, {{1, 1}, {3, 8}, {4, 24}}, {{2, 8}, {4, 32}, {5, 64}}};

static void setup(const rr__model *m, int32_t types) {
    memset(&device, 0, sizeof device);
    device.fail_alloc = -1;
    backend_open(&reference, &rr__backend_ref, m, RR__FP32, NULL, 1);
    weights = (rr__trt_weights){.model = m,
                                .opts = {.max_batch_tokens = 16384, .max_batch_seqs = 1024},
                                .driver = &driver,
                                .info = {.n_profile = 3, .scratch = 1000, .types = types}};
    memcpy(weights.info.profile, profiles, sizeof profiles);
}

static void *open_one(void) {
    void    *x = NULL;
    rr_error err = {0};

    cr_assert_eq(rr__trt_instance_open(&weights, &x, &err), RR_OK, "%s", err.text);
    cr_assert_eq(device.runs, 3); /* every profile once, before the first batch */
    cr_assert_eq(device.n, 0);
    return x;
}

/* Sequences of the truth file cut to what the profiles take, in batches of 1 to all: ref's own bits. */
static void scores_as_ref(const char *dir, const char *path) {
    truth    t;
    int32_t *cu, *tok, n_seq = 0;
    int32_t  seg[1024];
    float    want[1024], got[1024];
    void    *x;

    truth_open(&t, dir, path);
    setup(t.model, t.model->n_type > 1);
    x = open_one();
    cu = calloc((size_t)t.n_seq * 8 + 1, sizeof *cu);
    tok = malloc((size_t)t.n_seq * 8 * 64 * sizeof *tok);
    for (int32_t k = 0; k < 8; k++) /* each of them several times, at other lengths */
        for (int32_t i = 0; i < t.n_seq && n_seq < 200; i++) {
            int32_t len = t.cu[i + 1] - t.cu[i], most = 64 - 7 * k;

            len = len < most ? len : most;
            len = len < t.model->max_length ? len : t.model->max_length;
            memcpy(tok + cu[n_seq], t.ids + t.cu[i], (size_t)len * sizeof *tok);
            seg[n_seq] = t.seg[i] < len ? t.seg[i] : len;
            cu[n_seq + 1] = cu[n_seq] + len;
            n_seq++;
        }
    for (int32_t n = 1; n <= n_seq; n = n < 12 ? n + 1 : n + 47) {
        rr__batch b = {.n_seq = n, .n_tok = cu[n], .tok = tok, .cu = cu, .seg = seg};
        rr_error  err = {0};

        for (int32_t i = 0; i < n; i++)
            b.max_len = cu[i + 1] - cu[i] > b.max_len ? cu[i + 1] - cu[i] : b.max_len;
        backend_score(&reference, &b, want);
        memset(got, 0xff, sizeof got);
        cr_assert_eq(rr__trt_instance_score(x, &b, got, &err), RR_OK, "%s", err.text);
        cr_assert_arr_eq(got, want, (size_t)n * sizeof *got, "%d sequences", (int)n);
    }
    rr__trt_instance_close(x);
    cr_assert_eq(device.live, 0);
    free(cu);
    free(tok);
    backend_close(&reference);
    truth_close(&t);
}

Test(instance, scores_as_ref) {
    scores_as_ref("tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors");
}

Test(instance, scores_as_ref_with_token_types) {
    scores_as_ref("tests/data/tiny-bert", "tests/data/tiny-bert/truth.safetensors");
}

Test(instance, a_pair_beyond_the_profiles_is_refused_and_the_next_is_scored) {
    truth     t;
    int32_t   cu[2] = {0, 65}, tok[65];
    rr__batch b = {.n_seq = 1, .n_tok = 65, .max_len = 65, .tok = tok, .cu = cu};
    rr_error  err = {0};
    float     logit;
    void     *x;

    truth_open(&t, "tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors");
    setup(t.model, 0);
    x = open_one();
    for (int i = 0; i < 65; i++)
        tok[i] = 5;
    cr_assert_eq(rr__trt_instance_score(x, &b, &logit, &err), RR_E_TOO_LARGE);
    cr_assert(strstr(err.text, "65 tokens"), "%s", err.text);
    b.n_tok = b.max_len = cu[1] = 64;
    cr_assert_eq(rr__trt_instance_score(x, &b, &logit, &err), RR_OK, "%s", err.text);
    rr__trt_instance_close(x);
    backend_close(&reference);
    truth_close(&t);
}

/* Whichever allocation fails, the error says so and nothing leaks. */
Test(instance, out_of_memory_leaves_nothing_behind) {
    truth    t;
    rr_error err = {0};
    void    *x = NULL;
    int      n;

    truth_open(&t, "tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors");
    setup(t.model, 0);
    for (n = 0; n < 20; n++) {
        device.fail_alloc = n;
        if (rr__trt_instance_open(&weights, &x, &err) == RR_OK)
            break;
        cr_assert(err.status == RR_E_NOMEM, "%s", err.text);
        cr_assert(device.live == 0 && atomic_load(&weights.instances) == 0, "after %d", n);
    }
    cr_assert_eq(n,
                 10); /* stream, ids, mask, logits, scratch, two slots with an event each, logits */
    rr__trt_instance_close(x);
    cr_assert_eq(device.live, 0);
    backend_close(&reference);
    truth_close(&t);
}

Test(instance, memory_is_told_and_limited) {
    truth          t;
    rr_error       err = {0};
    void          *first, *second = NULL;
    const uint64_t each =
        1000 + 2 * 8 * 5 * 64 + 5 * sizeof(float); /* scratch, ids and mask, logits */

    truth_open(&t, "tests/data/tiny-xlmr", "tests/data/tiny-xlmr/truth.safetensors");
    setup(t.model, 0);
    cr_assert_eq(rr__trt_instance_bytes(&weights), each);
    weights.manifest.bytes = 5000;
    weights.opts.memory_limit = 5000 + each + each / 2;
    first = open_one();
    cr_assert_eq(rr__trt_instance_open(&weights, &second, &err), RR_E_NOMEM);
    cr_assert(strstr(err.text, "instance 2"), "%s", err.text);
    rr__trt_instance_close(first);
    device.runs = 0;
    second = open_one();
    rr__trt_instance_close(second);
    backend_close(&reference);
    truth_close(&t);
}
