/* build.c - rerank build: a TensorRT engine and the manifest that says what it was made from. */
#include "cli.h"
#include "lines.h"
#include "options.h"

#ifdef RR_WITH_ONNX
#include "backend/trt/trt.h"
#include "base/json_out.h"
#include "onnx/onnx.h"
#include "onnx_export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char summary[] =
    "Exports the model as ONNX, has TensorRT (10, 11) or TensorRT-RTX (1) compile it, and writes "
    "the\n"
    "engine with a manifest FILE.json: library, model hash, precision, profiles. Takes minutes.";

static const char epilog[] =
    "A profile is MIN,OPT,MAX, each BATCHxLENGTH; engines may have several. Default:\n"
    "  1x1,1x128,1x512  1x1,8x512,8x512  1x1,16x512,16x512  1x1,100x180,100x512\n"
    "TensorRT-RTX builds for SM 7.5, 8.6, 8.9 and 12.0 without a GPU (pip install\n"
    "tensorrt-rtx-cu13-libs, then --trt-lib .../site-packages/tensorrt_rtx_libs).\n"
    "Exit status: 0 built, 1 failed, 2 wrong usage.\n";

enum { MAX_PROFILES = 16 };

typedef struct build {
    const char     *output, *lib, *cache, *profiles;
    int64_t         workspace_mb, opset;
    int             verbose;
    cli_common      common;
    rr__trt_profile profile[MAX_PROFILES];
    int32_t         n_profile;
    rr__trt_about   about;
    char            hash[17];
} build;

static int parse_shape(const char **p, int32_t out[2], char end) {
    char *q;
    long  batch = strtol(*p, &q, 10), length;

    if (q == *p || *q != 'x' || batch < 1 || batch > 4096)
        return 0;
    *p = q + 1;
    length = strtol(*p, &q, 10);
    if (q == *p || length < 1 || length > 1 << 20 || (*q != end && !(end == '\0' && *q == ' ')))
        return 0;
    out[0] = (int32_t)batch;
    out[1] = (int32_t)length;
    *p = *q ? q + 1 : q;
    return 1;
}

/* "1x1,8x512,8x512 1x1,..." into profiles; 0 on a mistake. */
static int parse_profiles(build *b, const char *text) {
    while (*text) {
        rr__trt_profile *p = &b->profile[b->n_profile];

        if (b->n_profile == MAX_PROFILES || !parse_shape(&text, p->min, ',') ||
            !parse_shape(&text, p->opt, ',') || !parse_shape(&text, p->max, '\0'))
            return 0;
        b->n_profile++;
    }
    return b->n_profile > 0;
}

static void show_progress(void *user, const char *phase, int32_t step, int32_t n_step) {
    (void)phase;
    (void)user;
    if (n_step > 1) /* many phases have one step; they would only flicker */
        cli_progress("building", (uint64_t)step, (uint64_t)n_step, 0);
}

static void show_log(void *user, int is_error, const char *text) {
    const build *b = user;

    if (is_error || b->verbose)
        fprintf(stderr, "TensorRT: %s\n", text);
}

static void put_shape(rr__json_out *o, const char *key, const int32_t shape[2]) {
    rr__out_key(o, key);
    rr__out_array(o);
    rr__out_i64(o, shape[0]);
    rr__out_i64(o, shape[1]);
    rr__out_end_array(o);
}

static rr_status write_manifest(const build *b, const char *precision, uint64_t bytes,
                                rr_error *err) {
    char         path[4096];
    rr__json_out o = {0};
    rr_status    s;

    rr__out_object(&o);
    rr__out_key(&o, "rerank_engine");
    rr__out_i64(&o, 1);
    rr__out_key(&o, "library");
    rr__out_cstr(&o, b->about.library);
    rr__out_key(&o, "headers");
    rr__out_i64(&o, b->about.headers);
    rr__out_key(&o, "model");
    rr__out_cstr(&o, cli_model_dir(&b->common));
    rr__out_key(&o, "model_hash");
    rr__out_cstr(&o, b->hash);
    rr__out_key(&o, "precision");
    rr__out_cstr(&o, precision);
    rr__out_key(&o, "bytes");
    rr__out_u64(&o, bytes);
    rr__out_key(&o, "profiles");
    rr__out_array(&o);
    for (int32_t i = 0; i < b->n_profile; i++) {
        rr__out_object(&o);
        put_shape(&o, "min", b->profile[i].min);
        put_shape(&o, "opt", b->profile[i].opt);
        put_shape(&o, "max", b->profile[i].max);
        rr__out_end_object(&o);
    }
    rr__out_end_array(&o);
    rr__out_end_object(&o);
    rr__out_raw(&o, "\n", 1);
    snprintf(path, sizeof path, "%s.json", b->output);
    s = rr__out_save(&o, path, err);
    rr__out_free(&o);
    return s;
}

static rr_status run(build *b, rr_error *err) {
    const rr__trt_api *api;
    char               onnx[4096], data[4096 + 8];
    const char        *precision = b->common.precision ? b->common.precision : "fp16";
    rr__trt_build_opts o = {.lib_dir = b->lib,
                            .profile = b->profile,
                            .n_profile = b->n_profile,
                            .workspace = (uint64_t)b->workspace_mb << 20,
                            .timing_cache = b->cache,
                            .progress = isatty(2) ? show_progress : NULL,
                            .log = show_log,
                            .user = b};
    struct stat        st = {0};
    rr_status          s = rr__trt_open(&api, err);

    if (!s)
        s = api->probe(b->lib, &b->about, err);
    if (s)
        return s;
    snprintf(onnx, sizeof onnx, "%.4000s.onnx", b->output);
    snprintf(data, sizeof data, "%s.data", onnx);
    s = cli_onnx_export(cli_model_dir(&b->common), onnx, precision, b->common.calibration,
                        (rr__onnx_opts){.opset = (int32_t)b->opset}, b->hash, err);
    if (!s) {
        fprintf(stderr, "%s compiles %s, %d profiles ...\n", b->about.library, onnx,
                (int)b->n_profile);
        s = api->build(&o, onnx, b->output, err);
        cli_progress("building", 1, 1, 1);
    }
    remove(onnx);
    remove(data);
    if (!s && stat(b->output, &st) != 0)
        s = rr__fail(err, RR_E_IO, "%s: %s", b->output, strerror(errno));
    if (!s)
        s = write_manifest(b, precision, (uint64_t)st.st_size, err);
    if (!s)
        printf("%s: %.1f MB, %s, %s, %d profiles\n", b->output, (double)st.st_size / 1e6,
               b->about.library, precision, (int)b->n_profile);
    return s;
}

int cmd_build(int argc, char **argv) {
    build b = {.profiles = "1x1,1x128,1x512 1x1,8x512,8x512 1x1,16x512,16x512 1x1,100x180,100x512"};
    const cli_flag flags[] = {
        {"output", 'o', CLI_TEXT, &b.output, "FILE", "the engine; its manifest is FILE.json", 0, 0},
        {"profile", 0, CLI_TEXT, &b.profiles, "LIST", "profiles, separated by spaces (see below)",
         0, 0},
        {"workspace", 0, CLI_INT, &b.workspace_mb, "MB",
         "device memory for tactics (default TensorRT's)", 0, 1 << 20},
        {"timing-cache", 0, CLI_TEXT, &b.cache, "FILE", "kernel timings, kept between builds", 0,
         0},
        {"trt-lib", 0, CLI_TEXT, &b.lib, "DIR", "where TensorRT's libraries are", 0, 0},
        {"opset", 0, CLI_INT, &b.opset, "N", "ONNX opset (default 17, fp8 19)", 0, 1000},
        {"verbose", 'v', CLI_BOOL, &b.verbose, NULL, "show TensorRT's warnings", 0, 0},
    };
    const cli_command c = {
        "build", "-o FILE [options]", summary, flags, sizeof flags / sizeof flags[0], &b.common,
        epilog};
    cli_rest rest;
    rr_error err = {0};
    int      code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (rest.n || !b.output)
        return cli_fail("build", EXIT_USAGE, "-o FILE is needed; see rerank build --help");
    if (!parse_profiles(&b, b.profiles))
        return cli_fail("build", EXIT_USAGE, "--profile \"%s\" is not MIN,OPT,MAX of BATCHxLENGTH",
                        b.profiles);
    return run(&b, &err) ? cli_fail("build", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
#endif
