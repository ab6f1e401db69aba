/* trt.c - see trt.h. */
#include "trt.h"

#include "lines.h"

#include "backend/trt/driver.h"
#include "base/clock.h"
#include "base/file.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int trt_chosen(const cli_common *c) {
    return c->backend ? strcmp(c->backend, "trt") == 0 : c->engine != NULL;
}

/* The first card of --devices, or nothing. */
static void card(const cli_common *c, rr__trt_here *h) {
    if (rr__driver_look((int32_t)strtol(c->devices ? c->devices : "0", NULL, 10), h, NULL) != RR_OK)
        *h = (rr__trt_here){.sm = 0};
}

#ifdef RR_WITH_ONNX
#include "backend/backend.h"
#include "onnx/onnx.h"
#include "onnx_export.h"

#include <pthread.h>

/* ---- progress: TensorRT's phases lie in each other ------------------------------------------- */

enum { MAX_PHASES = 32 };

typedef struct phase {
    char    name[96], parent[96];
    int32_t done, n;
} phase;

typedef struct building {
    const trt_build *b;
    pthread_mutex_t  lock; /* TensorRT reports from its own threads */
    phase            phase[MAX_PHASES];
    int              n;
    double           shown;
} building;

/* How much of phase i is done: its steps, and of the step under way what the phases inside it are. */
static double share(const building *x, int i, int depth) {
    double inside = 0;

    for (int k = 0; k < x->n && depth < MAX_PHASES; k++)
        if (k != i && strcmp(x->phase[k].parent, x->phase[i].name) == 0)
            inside += share(x, k, depth + 1);
    inside = x->phase[i].done + (inside < 1 ? inside : 1);
    return x->phase[i].n > 0 && inside < x->phase[i].n ? inside / x->phase[i].n : 1;
}

static void progress(void *user, const char *name, const char *parent, int32_t step,
                     int32_t n_step) {
    building *x = user;
    int       i;

    pthread_mutex_lock(&x->lock);
    for (i = x->n - 1; i >= 0 && strcmp(x->phase[i].name, name) != 0; i--)
        ;
    if (parent && x->n < MAX_PHASES) {
        phase *p = &x->phase[x->n++];

        *p = (phase){.n = n_step};
        snprintf(p->name, sizeof p->name, "%s", name);
        snprintf(p->parent, sizeof p->parent, "%s", parent);
    } else if (!parent && i >= 0 && step == n_step) {
        if (i > 0)
            memmove(&x->phase[i], &x->phase[i + 1], (size_t)(--x->n - i) * sizeof *x->phase);
    } else if (!parent && i >= 0) {
        x->phase[i].done = step;
    }
    if (x->n > 0) {
        const double now = share(x, 0, 0);

        x->shown =
            now > x->shown ? now : x->shown; /* a phase that is done again does not go back */
    }
    cli_progress("building", (uint64_t)(1000 * x->shown), 1000, 0);
    pthread_mutex_unlock(&x->lock);
}

/* ---- building -------------------------------------------------------------------------------- */

static void show_log(void *user, int is_error, const char *text) {
    const building *x = user;

    if (is_error || x->b->verbose)
        fprintf(stderr, "TensorRT: %s\n", text);
}

static rr_status keep_cache(void *user, const void *bytes, size_t n, rr_error *err) {
    const building *x = user;

    return rr__file_save(x->b->cache, bytes, n, err);
}

static rr_status keep_plan(void *user, const void *bytes, size_t n, rr_error *err) {
    building  *x = user;
    trt_build *b = (trt_build *)x->b;

    b->m.bytes = n;
    rr__bytes_hash(bytes, n, b->m.plan_hash);
    return rr__file_save(b->output, bytes, n, err);
}

/* --for: by the library where the module knows its call. TensorRT-RTX's usual engine holds all its
 * cards from Ampere on, so that is what a module without the call gives for one of them. */
static rr_status choose_target(trt_build *b, const rr__trt_about *about, rr_error *err) {
    const int rtx = strncmp(about->library, "TensorRT-RTX", 12) == 0, sm = b->m.target;

    if (!sm || (rtx && about->targets))
        return RR_OK;
    if (!rtx)
        return rr__fail(
            err, RR_E_UNSUPPORTED,
            "--for sm_%d: %s builds for the card it runs on; TensorRT-RTX builds for others", sm,
            about->library);
    if (sm != 86 && sm != 89 && sm != 120)
        return rr__fail(err, RR_E_UNSUPPORTED,
                        "--for sm_%d needs a module made with TensorRT-RTX's own headers (make trt "
                        "TRT=/path/to/TensorRT-RTX); this one builds for sm_86, sm_89 and sm_120",
                        sm);
    fprintf(
        stderr,
        "sm_%d is among the cards of every TensorRT-RTX engine; one for it alone needs a module "
        "made with TensorRT-RTX's headers\n",
        sm);
    b->m.target = 0;
    return RR_OK;
}

/* int8 takes its scales from --calibration, or from the model's folder. */
static void choose_calibration(trt_build *b, const char *dir) {
    char own[sizeof b->m.calibration];

    if (b->m.calibration[0] || strcmp(b->m.precision, "int8") != 0)
        return;
    if (rr__calibration_of_folder(dir, RR__INT8, own, sizeof own) && access(own, R_OK) == 0)
        memcpy(b->m.calibration, own, sizeof own);
}

static rr_status compile(trt_build *b, const rr__trt_api *api, const char *onnx, rr_error *err) {
    building           x = {.b = b, .lock = PTHREAD_MUTEX_INITIALIZER};
    rr__file           cache = {NULL, 0};
    rr__trt_build_opts o = {.profile = b->m.profile,
                            .n_profile = b->m.n_profile,
                            .target = b->m.target,
                            .workspace = b->m.workspace,
                            .keep_cache = b->cache ? keep_cache : NULL,
                            .keep_plan = keep_plan,
                            .progress = isatty(2) ? progress : NULL,
                            .log = show_log,
                            .user = &x};
    rr_status          s = RR_OK;

    if (b->cache && access(b->cache, F_OK) == 0)
        s = rr__file_map(b->cache, &cache, err);
    o.cache = cache.ptr;
    o.cache_bytes = cache.size;
    if (!s)
        s = api->build(&o, onnx, err);
    cli_progress("building", 1, 1, 1);
    rr__file_unmap(&cache);
    return s;
}

/* "; it took 34 s last time", where the manifest of the same engine says so. */
static void expect(const trt_build *b, char text[64]) {
    rr__trt_manifest old;

    *text = '\0';
    if (rr__trt_manifest_read(b->output, &old, NULL) == RR_OK && old.seconds > 0 &&
        old.n_profile == b->m.n_profile && strcmp(old.precision, b->m.precision) == 0)
        snprintf(text, 64, "; it took %.0f s last time", old.seconds);
}

rr_status trt_build_run(trt_build *b, rr_error *err) {
    const rr__trt_api *api;
    const char        *dir = cli_model_dir(b->common);
    const int64_t      begin = rr__now_ns();
    char               onnx[4096], data[4096 + 8], before[64];
    rr__trt_about      about;
    rr__trt_here       here = {.sm = 0};
    rr_status          s = rr__trt_open(&api, err);

    if (!s)
        s = api->probe(NULL, &about, err);
    if (!s)
        s = choose_target(b, &about, err);
    if (s)
        return s;
    card(b->common, &here); /* TensorRT-RTX needs none to build */
    if (!b->m.opset)
        b->m.opset =
            strcmp(b->m.precision, "fp8") == 0 ? RR__ONNX_OPSET_FP8 : RR__ONNX_OPSET_DEFAULT;
    choose_calibration(b, dir);
    memcpy(b->m.library, about.library, sizeof b->m.library);
    memcpy(b->m.gpu, here.gpu, sizeof b->m.gpu);
    memcpy(b->m.driver, here.driver, sizeof b->m.driver);
    b->m.headers = about.headers;
    b->m.sm = here.sm;
    b->m.cuda = here.cuda;
    snprintf(b->m.model, sizeof b->m.model, "%s", dir);
    snprintf(onnx, sizeof onnx, "%.4000s.onnx", b->output);
    snprintf(data, sizeof data, "%s.data", onnx);
    s = cli_onnx_export(dir, onnx, b->m.precision, b->m.calibration[0] ? b->m.calibration : NULL,
                        (rr__onnx_opts){.opset = b->m.opset}, b->m.model_hash, err);
    if (!s) {
        expect(b, before);
        fprintf(stderr, "%s compiles %s at %s, %d profiles%s ...\n", about.library, dir,
                b->m.precision, (int)b->m.n_profile, before);
        s = compile(b, api, onnx, err);
    }
    remove(onnx);
    remove(data);
    b->m.seconds = (double)((rr__now_ns() - begin) / 1000000) * 1e-3;
    if (!s)
        s = rr__trt_manifest_write(&b->m, b->output, err);
    return s;
}
#else
rr_status trt_build_run(trt_build *b, rr_error *err) {
    (void)b;
    return rr__fail(err, RR_E_UNSUPPORTED,
                    "this build cannot export ONNX and so builds no engine: make setup, then make");
}
#endif

/* ---- before an engine runs ------------------------------------------------------------------- */

/* What the engine would run with: its own bytes, the model's weights, and the library and the card as
 * far as they are there. */
static rr_status look(const cli_common *c, rr__trt_here *h, rr_error *err) {
    const rr__trt_api *api;
    rr__trt_about      about;
    rr__model         *m = NULL;
    rr__file           plan = {NULL, 0};
    rr_status          s = rr__model_open(cli_model_dir(c), &m, err);

    if (s)
        return s;
    *h = (rr__trt_here){.sm = 0};
    card(c, h);
    if (rr__trt_open(&api, NULL) == RR_OK && api->probe(NULL, &about, NULL) == RR_OK)
        memcpy(h->library, about.library, sizeof h->library);
    rr__model_hash(m, h->model_hash);
    rr__model_close(m);
    if (rr__file_map(c->engine, &plan, NULL) == RR_OK) /* a file that is gone is stale, too */
        rr__bytes_hash(plan.ptr, plan.size, h->plan_hash);
    rr__file_unmap(&plan);
    return RR_OK;
}

static rr_status rebuild(const cli_common *c, rr_error *err) {
    rr__trt_here h = {.sm = 0};
    trt_build    b = {.common = c, .output = c->engine};
    rr_error     why = {0};
    rr_status    s = rr__trt_manifest_read(c->engine, &b.m, err);

    if (s)
        return rr__fail_prefix(err, s, "--rebuild needs the profiles of the engine");
    s = look(c, &h, err);
    if (s || rr__trt_fresh(&b.m, &h, c->engine, &why) == RR_OK)
        return s;
    fprintf(stderr, "%s\n", why.text);
    if (c->calibration && strlen(c->calibration) < sizeof b.m.calibration)
        snprintf(b.m.calibration, sizeof b.m.calibration, "%s", c->calibration);
    else if (b.m.calibration[0] && strcmp(b.m.model_hash, h.model_hash) != 0)
        b.m.calibration[0] = '\0'; /* of the old weights; the new model's own, if it has one */
    b.m.target = 0;                /* for the card that is here */
    return trt_build_run(&b, err);
}

/* Where the engine cannot run, what is wrong with itself is still the thing to say first. */
static rr_status partly(const cli_common *c, rr_error *err) {
    rr__trt_manifest m;
    rr__trt_here     h;
    rr_status        s = rr__trt_manifest_read(c->engine, &m, err);

    if (!s)
        s = look(c, &h, err);
    return s ? s : rr__trt_fresh(&m, &h, c->engine, err);
}

rr_status trt_lib(const cli_common *c, rr_error *err) {
    if (c->trt_lib && setenv("RERANK_TRT_LIB", c->trt_lib, 1) != 0)
        return rr__fail(err, RR_E_NOMEM, "out of memory");
    return RR_OK;
}

rr_status trt_ready(const cli_common *c, rr_error *err) {
    rr_status s = trt_lib(c, err);

    if (s)
        return s;
    if (c->engine && !trt_chosen(c))
        return rr__fail(err, RR_E_ARG, "--engine is for --backend trt, not %s", c->backend);
    if (c->rebuild && !c->engine)
        return rr__fail(err, RR_E_ARG, "--rebuild needs the engine to rebuild: --engine FILE");
    if (!trt_chosen(c))
        return RR_OK;
    if (!c->engine)
        return rr__fail(err, RR_E_ARG,
                        "--backend trt needs --engine FILE; rerank build makes one of this model");
    if (c->calibration && !c->rebuild)
        return rr__fail(err, RR_E_ARG,
                        "an engine holds its scales: give --calibration to rerank build");
    if (c->rebuild)
        return rebuild(c, err);
    return rr_backend_probe("trt", NULL) == RR_OK ? RR_OK : partly(c, err);
}
