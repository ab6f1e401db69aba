/* test_manifest.c - what an engine's manifest must hold, and which differences make an engine stale. */
#include "backend/trt/manifest.h"

#include "backend/trt/driver.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SET(field, text) snprintf(field, sizeof field, "%s", text)

static rr__trt_manifest sample(void) {
    return (rr__trt_manifest){
        .library = "TensorRT-RTX 1.7.1",
        .model = "models/\"mini\"",
        .model_hash = "0123456789abcdef",
        .plan_hash = "fedcba9876543210",
        .precision = "int8",
        .calibration = "mini.cal.json",
        .gpu = "NVIDIA L4",
        .driver = "580.159.04",
        .headers = 110100,
        .opset = 17,
        .sm = 89,
        .target = 86,
        .cuda = 13000,
        .bytes = 77732580,
        .workspace = 1 << 20,
        .seconds = 10.5,
        .n_profile = 2,
        .profile = {{{1, 1}, {8, 512}, {16, 512}}, {{1, 1}, {100, 180}, {100, 512}}}};
}

Test(manifest, what_is_written_is_read_back) {
    rr__trt_manifest m = sample(), back;
    char             plan[] = "/tmp/rr-manifest-XXXXXX", path[64];
    rr_error         err = {0};
    int              fd = mkstemp(plan);

    cr_assert(fd >= 0);
    close(fd);
    snprintf(path, sizeof path, "%s.json", plan);
    cr_assert_eq(rr__trt_manifest_write(&m, plan, &err), RR_OK, "%s", err.text);
    cr_assert_eq(rr__trt_manifest_read(plan, &back, &err), RR_OK, "%s", err.text);
    cr_assert_str_eq(back.library, m.library);
    cr_assert_str_eq(back.model, m.model);
    cr_assert_str_eq(back.model_hash, m.model_hash);
    cr_assert_str_eq(back.plan_hash, m.plan_hash);
    cr_assert_str_eq(back.precision, m.precision);
    cr_assert_str_eq(back.calibration, m.calibration);
    cr_assert_str_eq(back.gpu, m.gpu);
    cr_assert_str_eq(back.driver, m.driver);
    cr_assert(back.headers == m.headers && back.opset == m.opset && back.sm == m.sm &&
              back.target == m.target && back.cuda == m.cuda && back.bytes == m.bytes &&
              back.workspace == m.workspace && back.seconds == m.seconds);
    cr_assert_eq(back.n_profile, 2);
    cr_assert_arr_eq(back.profile, m.profile, 2 * sizeof m.profile[0]);
    unlink(path);
    cr_assert_eq(rr__trt_manifest_read(plan, &back, &err), RR_E_IO);
    cr_assert(strstr(err.text, path), "%s", err.text);
    unlink(plan);
}

#define FIELDS                                                                                     \
    "\"library\": \"TensorRT 11.1.0\", \"model_hash\": \"0123456789abcdef\", \"precision\": "      \
    "\"fp16\", \"opset\": 17, \"plan_hash\": \"fedcba9876543210\""
#define PROFILES "\"profiles\": [{\"min\": [1, 1], \"opt\": [8, 512], \"max\": [16, 512]}]"

static void refuses(const char *json, const char *says) {
    rr__trt_manifest m;
    rr_error         err = {0};

    cr_assert_eq(rr__trt_manifest_parse(json, strlen(json), "e.plan.json", &m, &err), RR_E_FORMAT,
                 "%s", json);
    cr_assert(strstr(err.text, "e.plan.json") && strstr(err.text, says), "%s: %s", json, err.text);
}

Test(manifest, refuses_what_is_missing_or_makes_no_sense) {
    const char *good = "{\"rerank_engine\": 2, " FIELDS ", \"bytes\": 5, " PROFILES
                       ", \"unknown\": [1, {\"a\": null}]}";
    rr__trt_manifest m;
    rr_error         err = {0};

    cr_assert_eq(rr__trt_manifest_parse(good, strlen(good), "x", &m, &err), RR_OK, "%s", err.text);
    refuses("", "byte 0");
    refuses("{\"rerank_engine\": 1, " FIELDS ", \"bytes\": 5, " PROFILES "}", "rerank build");
    refuses("{" FIELDS ", \"bytes\": 5, " PROFILES "}", "rerank_engine is not 2");
    refuses("{\"rerank_engine\": 2, " FIELDS ", " PROFILES "}", "needed");
    refuses("{\"rerank_engine\": 2, " FIELDS ", \"bytes\": 5}", "needed");
    refuses("{\"rerank_engine\": 2, " FIELDS ", \"bytes\": 5, \"profiles\": []}", "needed");
    refuses("{\"rerank_engine\": 2, " FIELDS ", \"bytes\": 0, " PROFILES "}", "out of range");
    refuses("{\"rerank_engine\": 2, " FIELDS ", \"bytes\": 5, " PROFILES "} x", "byte");
    refuses("{\"rerank_engine\": 2, " FIELDS ", \"precision\": \"fp4\"}", "precision");
    refuses("{\"rerank_engine\": 2, " FIELDS ", \"model_hash\": \"0123456789ABCDEF\"}", "hex");
    refuses("{\"rerank_engine\": 2, " FIELDS ", \"driver\": \"a\\u0000b\"}", "NUL");
    refuses("{\"rerank_engine\": 2, " FIELDS
            ", \"driver\": \"0123456789012345678901234567890123456789\"}",
            "too long");
    refuses("{\"rerank_engine\": 2, " FIELDS ", \"for\": \"ada\"}", "sm_");
    refuses("{\"rerank_engine\": 2, \"profiles\": [{\"min\": [1, 1], \"opt\": [8, 512], \"max\": "
            "[4, 512]}]}",
            "min <= opt <= max");
    refuses("{\"rerank_engine\": 2, \"profiles\": [{\"min\": [1, 1], \"opt\": [8, 512]}]}",
            "min <= opt <= max");
    refuses("{\"rerank_engine\": 2, \"profiles\": [{\"min\": [1, 1, 1]}]}", "[batch, length]");
    refuses("{\"rerank_engine\": 2, \"profiles\": [{\"min\": [0, 1]}]}", "out of range");
    refuses("{\"rerank_engine\": 2, \"profiles\": [{\"min\": [5000, 1]}]}", "out of range");
}

Test(manifest, refuses_a_17th_profile) {
    const char *one = "{\"min\":[1,1],\"opt\":[1,1],\"max\":[1,1]}";
    char        json[2048] = "{\"rerank_engine\": 2, \"profiles\": [";

    for (int i = 0; i < 17; i++) {
        size_t n = strlen(json);

        snprintf(json + n, sizeof json - n, "%s%s", i ? "," : "", one);
    }
    snprintf(json + strlen(json), sizeof json - strlen(json), "]}");
    refuses(json, "too many profiles");
}

Test(manifest, knows_compute_capabilities) {
    cr_assert_eq(rr__trt_sm_parse("sm_86"), 86);
    cr_assert_eq(rr__trt_sm_parse("8.9"), 89);
    cr_assert_eq(rr__trt_sm_parse("sm_120"), 120);
    cr_assert_eq(rr__trt_sm_parse("12.0"), 120);
    cr_assert_eq(rr__trt_sm_parse("90"), 90);
    for (const char *const *bad = (const char *const[]){"", "sm_", "ada", "sm_8", "8.", ".86",
                                                        "8.6x", "1234", "-86", "8.6.1", NULL};
         *bad; bad++)
        cr_assert_eq(rr__trt_sm_parse(*bad), 0, "%s", *bad);
}

/* The machine on which an engine of m was made. */
static rr__trt_here same(const rr__trt_manifest *m) {
    rr__trt_here h = {.sm = m->target ? m->target : m->sm, .cuda = m->cuda};

    memcpy(h.library, m->library, sizeof h.library);
    memcpy(h.model_hash, m->model_hash, sizeof h.model_hash);
    memcpy(h.plan_hash, m->plan_hash, sizeof h.plan_hash);
    memcpy(h.gpu, m->gpu, sizeof h.gpu);
    memcpy(h.driver, m->driver, sizeof h.driver);
    return h;
}

static void stale(const rr__trt_manifest *m, const rr__trt_here *h, const char *says) {
    rr_error err = {0};

    cr_assert_eq(rr__trt_fresh(m, h, "e.plan", &err), RR_E_ARG, "%s", says);
    cr_assert(strstr(err.text, "e.plan") && strstr(err.text, says) &&
                  strstr(err.text, "rerank build"),
              "%s: %s", says, err.text);
}
static void fresh(const rr__trt_manifest *m, const rr__trt_here *h) {
    rr_error err = {0};

    cr_assert_eq(rr__trt_fresh(m, h, "e.plan", &err), RR_OK, "%s", err.text);
}

Test(stale, every_difference_is_named) {
    rr__trt_manifest m = sample();
    rr__trt_here     h = same(&m);

    fresh(&m, &h);
    h.model_hash[0] = 'f';
    stale(&m, &h, "made from other weights (0123456789abcdef)");
    h = same(&m);
    h.plan_hash[0] = '0';
    stale(&m, &h, "not the file that its manifest describes");
    h = same(&m);
    SET(h.library, "TensorRT-RTX 1.8.0");
    stale(&m, &h, "made by TensorRT-RTX 1.7.1, here is TensorRT-RTX 1.8.0");
    h = same(&m);
    h.sm = 120;
    stale(&m, &h, "made for sm_86, NVIDIA L4 is sm_120");
    h = same(&m);
    h.cuda = 12080;
    stale(&m, &h, "made with CUDA 13.0, the driver here knows 12.8");
    h = same(&m);
    SET(h.driver, "575.57.08");
    stale(&m, &h, "made with driver 580.159.04, here is the older 575.57.08");
}

Test(stale, a_newer_driver_is_no_difference) {
    rr__trt_manifest m = sample();
    rr__trt_here     h = same(&m);

    SET(h.driver, "590.1");
    h.cuda = 13010;
    fresh(&m, &h);
    SET(h.driver, "580.2"); /* another of the same branch */
    fresh(&m, &h);
}

Test(stale, tensorrt_is_bound_to_its_card_and_rtx_is_not) {
    rr__trt_manifest m = sample();
    rr__trt_here     h;

    m.target = 0;
    h = same(&m);
    SET(h.gpu, "NVIDIA RTX 5090");
    h.sm = 120;
    fresh(&m, &h); /* RTX compiles its kernels on the card that runs them */
    SET(m.library, "TensorRT 11.1.0");
    SET(h.library, "TensorRT 11.1.0");
    stale(&m, &h, "made on NVIDIA L4 (sm_89), here is NVIDIA RTX 5090 (sm_120)");
    h.sm = 89; /* the same architecture with other timings */
    stale(&m, &h, "made on NVIDIA L4 (sm_89)");
    h = same(&m);
    fresh(&m, &h);
    m.gpu[0] = '\0';
    m.sm = 0;
    stale(&m, &h, "made on no card");
}

Test(stale, an_engine_made_without_a_card_asks_nothing_of_the_driver) {
    rr__trt_manifest m = sample();
    rr__trt_here     h;

    m.target = m.sm = m.cuda = 0;
    m.gpu[0] = m.driver[0] = '\0';
    h = same(&m);
    h.sm = 89;
    h.cuda = 12080;
    SET(h.gpu, "NVIDIA L4");
    SET(h.driver, "570.1");
    fresh(&m, &h);
}

Test(stale, what_is_not_known_is_not_compared) {
    rr__trt_manifest m = sample();
    rr__trt_here     h = same(&m);

    h.gpu[0] = h.driver[0] = h.library[0] = '\0';
    h.sm = h.cuda = 0;
    fresh(&m, &h);
    h.plan_hash[0] = '\0'; /* no such file */
    stale(&m, &h, "not the file");
}

Test(driver, looks_or_says_why_not) {
    rr__trt_here h = {.sm = 0};
    rr_error     err = {0};
    rr_status    s = rr__driver_look(0, &h, &err);

    if (s == RR_OK)
        cr_assert(*h.gpu && h.sm >= 50 && h.cuda >= 10000);
    else
        cr_assert(s == RR_E_UNSUPPORTED && strstr(err.text, "NVIDIA"), "%s", err.text);
}
