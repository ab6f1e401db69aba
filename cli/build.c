/* build.c - rerank build: a TensorRT engine and the manifest that says what it was made from. */
#include "cli.h"
#include "options.h"

#ifdef RR_WITH_ONNX
#include "trt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char summary[] =
    "Exports the model as ONNX, has TensorRT (10, 11) or TensorRT-RTX (1) compile it, and writes "
    "the\n"
    "engine with a manifest FILE.json: library, model hash, precision, profiles, card, driver. "
    "Takes\n"
    "minutes. Every command runs it with --engine FILE, and refuses it where one of these differs.";

static const char epilog[] =
    "A profile is MIN,OPT,MAX, each BATCHxLENGTH; engines may have several. Default:\n"
    "  1x1,1x128,1x512  1x1,8x512,8x512  1x1,16x512,16x512  1x1,100x180,100x256\n"
    "Longer ones of a hundred go to the third: the scratch of an instance is that of the largest\n"
    "profile, and 100x512 of 24 layers x 1,024 would be 730 MB of qkv and feed-forward alone.\n"
    "TensorRT-RTX builds without a GPU, for its cards from Ampere on (pip install\n"
    "tensorrt-rtx-cu13-libs, then --trt-lib .../site-packages/tensorrt_rtx_libs); TensorRT builds "
    "for\n"
    "the card it runs on. int8 takes its scales from --calibration, or from the model's folder.\n"
    "Exit status: 0 built, 1 failed, 2 wrong usage.\n";

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
static int parse_profiles(rr__trt_manifest *m, const char *text) {
    while (*text) {
        rr__trt_profile *p = &m->profile[m->n_profile];

        if (m->n_profile == RR__TRT_PROFILES || !parse_shape(&text, p->min, ',') ||
            !parse_shape(&text, p->opt, ',') || !parse_shape(&text, p->max, '\0'))
            return 0;
        m->n_profile++;
    }
    return m->n_profile > 0;
}

int cmd_build(int argc, char **argv) {
    const char *profiles = "1x1,1x128,1x512 1x1,8x512,8x512 1x1,16x512,16x512 1x1,100x180,100x256";
    const char *target = NULL;
    int64_t     workspace_mb = 0, opset = 0;
    cli_common  common = {0};
    trt_build   b = {.common = &common};
    const cli_flag flags[] = {
        {"output", 'o', CLI_TEXT, &b.output, "FILE", "the engine; its manifest is FILE.json", 0, 0},
        {"profile", 0, CLI_TEXT, &profiles, "LIST", "profiles, separated by spaces (see below)", 0,
         0},
        {"for", 0, CLI_TEXT, &target, "SM", "build for another card: sm_86 (TensorRT-RTX)", 0, 0},
        {"workspace", 0, CLI_INT, &workspace_mb, "MB",
         "device memory for tactics (default TensorRT's)", 0, 1 << 20},
        {"timing-cache", 0, CLI_TEXT, &b.cache, "FILE", "kernel timings, kept between builds", 0,
         0},
        {"opset", 0, CLI_INT, &opset, "N", "ONNX opset (default 17, fp8 19)", 0, 1000},
        {"verbose", 'v', CLI_BOOL, &b.verbose, NULL, "show TensorRT's warnings", 0, 0},
    };
    const cli_command c = {
        "build", "-o FILE [options]", summary, flags, sizeof flags / sizeof flags[0], &common,
        epilog};
    cli_rest    rest;
    rr_error    err = {0};
    const char *precision;
    int         code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (rest.n || !b.output)
        return cli_fail("build", EXIT_USAGE, "-o FILE is needed; see rerank build --help");
    if (common.engine || common.rebuild)
        return cli_fail(
            "build", EXIT_USAGE,
            "--engine and --rebuild are for the commands that run one; -o FILE is written");
    if (!parse_profiles(&b.m, profiles))
        return cli_fail("build", EXIT_USAGE, "--profile \"%s\" is not MIN,OPT,MAX of BATCHxLENGTH",
                        profiles);
    if (target && !(b.m.target = rr__trt_sm_parse(target)))
        return cli_fail("build", EXIT_USAGE, "--for \"%s\" is no compute capability, such as sm_86",
                        target);
    if (common.calibration && strlen(common.calibration) >= sizeof b.m.calibration)
        return cli_fail("build", EXIT_USAGE, "the path of the calibration is too long");
    precision = common.precision && strcmp(common.precision, "auto") ? common.precision : "fp16";
    snprintf(b.m.precision, sizeof b.m.precision, "%s", precision);
    snprintf(b.m.calibration, sizeof b.m.calibration, "%s",
             common.calibration ? common.calibration : "");
    b.m.workspace = (uint64_t)workspace_mb << 20;
    b.m.opset = (int32_t)opset;
    if (trt_lib(&common, &err) || trt_build_run(&b, &err))
        return cli_fail("build", EXIT_FAILED, "%s", err.text);
    printf("%s: %.1f MB, %s, %s, %d profiles, %.0f s\n", b.output, (double)b.m.bytes / 1e6,
           b.m.library, b.m.precision, (int)b.m.n_profile, b.m.seconds);
    return cli_flush(&err) ? cli_fail("build", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
#endif
