/* test_cards.c - an engine on all cards of the machine, of which the first faults (fault.h). CUDA then
 * refuses every call of the process, for every card. So what is promised is that requests are answered
 * with the cause, at once, and that nothing hangs or crashes; the server then starts itself anew
 * (tests/serve/test_engine.py). Needs a card. */
#include "fault.h"
#include "rerank.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { N_DOC = 8, N_JOB = 64 };

/* N_JOB requests at once; how many failed or were refused, with RR_E_DEVICE. The others score `want`. */
static int ask(rr_engine *e, const rr_str *docs, const float *want) {
    rr_job  *job[N_JOB];
    rr_error err = {0}, last = {0};
    int      bad = 0;

    for (int i = 0; i < N_JOB; i++) {
        rr_status s =
            rr_submit(e, RR_STR("capital of France"), docs, N_DOC, NULL, NULL, NULL, &job[i], &err);

        cr_assert(s == RR_OK || s == RR_E_DEVICE, "%d: %s", (int)s, err.text);
        if (s != RR_OK)
            job[i] = NULL;
    }
    for (int i = 0; i < N_JOB; i++) {
        rr_status s = job[i] ? rr_wait(job[i], &err) : RR_E_DEVICE;

        cr_assert(s == RR_OK || s == RR_E_DEVICE, "%d: %s", (int)s, err.text);
        if (s == RR_OK)
            cr_assert_eq(memcmp(rr_job_scores(job[i], NULL), want, N_DOC * sizeof *want), 0);
        else if (bad++ == 0 || strcmp(err.text, last.text) != 0)
            fprintf(stderr, "cards: %s\n", err.text);
        last = err;
        rr_job_free(job[i]);
    }
    return bad;
}

Test(cards, a_fault_is_told_and_nothing_hangs, .timeout = 120) {
    rr_engine_opts o = {
        .backend = "cuda", .precision = "fp16", .devices = "all", .max_batch_tokens = 512};
    rr_model      *m = NULL;
    rr_engine     *e = NULL;
    rr_engine_info info;
    rr_error       err = {0};
    rr_status      s;
    rr_str         docs[N_DOC];
    char           text[N_DOC][32];
    float          want[N_DOC];

    cr_assert_eq(rr_model_open("models/mini", &m, &err), RR_OK, "%s", err.text);
    s = rr_engine_open(m, &o, &e, &err);
    if (s == RR_E_UNSUPPORTED) {
        rr_model_close(m);
        fprintf(stderr, "skip: cuda: %s\n", err.text);
        cr_skip_test("no card");
    }
    cr_assert_eq(s, RR_OK, "%s", err.text);
    rr_engine_describe(e, &info);
    for (int i = 0; i < N_DOC; i++) {
        snprintf(text[i], sizeof text[i], "Paris, number %d", i);
        docs[i] = (rr_str){text[i], strlen(text[i])};
    }
    cr_assert_eq(rr_score(e, RR_STR("capital of France"), docs, N_DOC, want, &err), RR_OK, "%s",
                 err.text);
    cr_assert_eq(ask(e, docs, want), 0);
    cr_assert_eq(rr_engine_check(e, 5000000, &err), RR_OK, "%s", err.text);

    cr_assert_gt(fault(), 0, "the card did not fault");
    fprintf(stderr, "cards: %d instances, %d of %d requests failed\n", (int)info.n_instances,
            ask(e, docs, want), (int)N_JOB);
    cr_assert_gt(ask(e, docs, want), 0);
    cr_assert_eq(rr_engine_check(e, 5000000, &err), RR_E_DEVICE);
    cr_assert(strstr(err.text, "cuda"), "%s", err.text);
    rr_engine_close(e);
    rr_model_close(m);
}
