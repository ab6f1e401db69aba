/* test_api.c - the public interface on a tiny model: results, arguments, threads, lifetimes. The
 * numbers themselves are the business of tests/backend. */
#include "api/tiny_model.h"

#include "api/api.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

static const rr_str docs3[] = {{"a b c", 5}, {"", 0}, {"d e f g h i j k l m n o a b", 27}};

Test(api, scores_the_same_by_every_way_in) {
    tiny               t;
    rr_model          *m = tiny_open(&t);
    rr_engine         *e = tiny_engine(m, NULL);
    rr_error           err = {0};
    rr_str             queries[3] = {RR_STR("a"), RR_STR("a"), RR_STR("a")};
    int32_t            ids[3 * 16], cu[4] = {0};
    float              scores[3];
    rr_job            *pairs, *raw;
    const rr_doc_info *info;
    rr_doc_info        one;
    rr_timing          timing;
    size_t             n;

    cr_assert_eq(rr_score(e, queries[0], docs3, 3, scores, &err), RR_OK, "%s", err.text);
    cr_assert(isfinite(scores[0]) && isfinite(scores[1]) && isfinite(scores[2]));
    cr_assert_eq(rr_submit_pairs(e, queries, docs3, 3, NULL, NULL, NULL, &pairs, &err), RR_OK);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(
            rr_tokenize_pair(m, queries[0], docs3[i], NULL, ids + cu[i], 16, &n, &one, &err), RR_OK,
            "%s", err.text);
        cu[i + 1] = cu[i] + (int32_t)n;
        info = rr_job_docs(pairs, NULL);
        cr_assert_eq(info[i].kept, (int32_t)n);
        cr_assert_eq(memcmp(&info[i], &one, sizeof one), 0);
    }
    cr_assert_eq(info[0].kept, 8); /* 4 special tokens, one of the query, three of the document */
    cr_assert_eq(info[0].truncated, 0);
    cr_assert_eq(info[2].tokens, 19);
    cr_assert_eq(info[2].kept, 16);
    cr_assert_eq(info[2].truncated, 1);
    cr_assert_eq(rr_submit_ids(e, ids, cu, NULL, 3, NULL, NULL, NULL, &raw, &err), RR_OK);
    cr_assert_eq(rr_wait(raw, &err), RR_OK);
    cr_assert_eq(rr_wait(pairs, &err), RR_OK);
    cr_assert_eq(memcmp(rr_job_scores(pairs, &n), scores, sizeof scores), 0);
    cr_assert_eq(n, 3);
    cr_assert_eq(memcmp(rr_job_scores(raw, &n), scores, sizeof scores), 0);
    rr_job_timing(raw, &timing);
    cr_assert_geq(timing.total_us, timing.forward_us);
    cr_assert_eq(timing.batches, 1);
    rr_job_free(pairs);
    rr_job_free(raw);
    rr_engine_close(e);
    rr_model_close(m);
    tiny_model_remove(&t);
}

/* An engine of TensorRT takes what its profiles take, whatever the model could. */
Test(api, lengths_are_lowered_to_what_a_backend_takes) {
    int32_t  usual = 512, longest = 8192;
    rr_error err = {0};

    cr_assert_eq(rr__lengths_within(0, 1024, &usual, &longest, &err), RR_OK);
    cr_assert(usual == 512 && longest == 1024);
    cr_assert_eq(rr__lengths_within(128, 128, &usual, &longest, &err), RR_OK);
    cr_assert(usual == 128 && longest == 128);
    cr_assert_eq(rr__lengths_within(129, 128, &usual, &longest, &err), RR_E_ARG);
    cr_assert(strstr(err.text, "129") && strstr(err.text, "takes 128"), "%s", err.text);
}

Test(api, describes_model_and_engine) {
    tiny           t;
    rr_model      *m = tiny_open(&t), *tok = NULL;
    rr_engine     *e = tiny_engine(m, NULL);
    rr_model_info  mi;
    rr_engine_info ei;
    rr_stats       st;
    rr_token       tokens[2];
    size_t         n;
    float          score;

    rr_model_describe(m, &mi);
    cr_assert_str_eq(mi.dtype, "float32");
    cr_assert_eq(mi.vocab_size, 20);
    cr_assert_eq(mi.max_length, 16);
    cr_assert_str_eq(mi.dir, t.dir);
    rr_engine_describe(e, &ei);
    cr_assert_str_eq(ei.backend, "ref");
    cr_assert_str_eq(ei.precision, "fp32");
    cr_assert_eq(ei.n_instances, 1);
    cr_assert_eq(ei.max_length, 16);
    cr_assert_eq(rr_engine_check(e, 5000000, NULL), RR_OK);
    cr_assert_eq(rr_engine_backlog_us(e), 0);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(rr_score(e, RR_STR("a"), docs3, 1, &score, NULL), RR_OK);
    rr_engine_stats(e, &st);
    cr_assert_eq(st.jobs, 5);
    cr_assert_eq(st.tokens, 40);
    cr_assert_eq(st.cache_misses, 1);
    cr_assert_eq(st.cache_hits, 4);
    cr_assert_eq(st.instances_ok, 1);

    cr_assert_eq(rr_tokenizer_open(t.dir, &tok, NULL), RR_OK);
    rr_model_describe(tok, &mi);
    cr_assert_eq(mi.vocab_size, 0);
    cr_assert_eq(rr_tokenize(tok, RR_STR("a b"), 1, tokens, 2, &n, NULL), RR_OK);
    cr_assert_eq(n, 4); /* more than fit */
    cr_assert_eq(tokens[1].id, 5);
    cr_assert_eq(rr_token_text(tok, 5).len, 4);
    cr_assert_null(rr_token_text(tok, 20).ptr);
    cr_assert_null(rr_token_text(tok, -1).ptr);
    rr_model_close(m); /* the engine holds a reference of its own */
    cr_assert_eq(rr_score(e, RR_STR("a"), docs3, 1, &score, NULL), RR_OK);
    e = (rr_engine_close(e), NULL);
    cr_assert_eq(rr_engine_open(tok, NULL, &e, NULL), RR_E_ARG);
    rr_model_close(tok);
    tiny_model_remove(&t);
}

Test(api, nothing_crashes_on_null_or_zero) {
    tiny        t;
    rr_model   *m = tiny_open(&t), *none = NULL;
    rr_engine  *e = tiny_engine(m, NULL);
    rr_error    err;
    rr_job     *job = NULL;
    rr_str      bad = {NULL, 5}, good = RR_STR("a");
    int32_t     ids[4] = {0, 5, 2, 99}, cu[3] = {0, 3, 4}, seg[2] = {9, 0};
    float       score = 0;
    rr_token    token;
    rr_doc_info info;
    rr_stats    st;
    rr_timing   timing;
    size_t      n = 77;

    cr_assert_eq(rr_model_open(NULL, &none, &err), RR_E_ARG);
    cr_assert_eq(rr_model_open(t.dir, NULL, NULL), RR_E_ARG);
    cr_assert_eq(rr_model_open("/nonexistent", &none, &err), RR_E_IO);
    cr_assert_eq(rr_tokenizer_open(NULL, &none, NULL), RR_E_ARG);
    cr_assert_null(none);
    rr_model_close(NULL);
    rr_model_describe(NULL, &(rr_model_info){0});
    rr_model_describe(m, NULL);
    cr_assert_eq(rr_tokenize(NULL, good, 0, &token, 1, &n, &err), RR_E_ARG);
    cr_assert_eq(rr_tokenize(m, good, 0, NULL, 1, &n, &err), RR_E_ARG);
    cr_assert_eq(rr_tokenize(m, bad, 0, &token, 1, &n, &err), RR_E_ARG);
    cr_assert_eq(rr_tokenize(m, good, 0, &token, 1, NULL, &err), RR_E_ARG);
    cr_assert_eq(rr_tokenize_pair(m, good, bad, NULL, ids, 4, &n, &info, &err), RR_E_ARG);
    cr_assert_eq(rr_tokenize_pair(m, good, good, NULL, NULL, 4, &n, NULL, &err), RR_E_ARG);
    cr_assert_eq(n, 77);
    cr_assert_eq(rr_tokenize_pair(m, good, good, NULL, NULL, 0, &n, NULL, &err), RR_OK);
    cr_assert_eq(n, 6);
    cr_assert_null(rr_token_text(NULL, 0).ptr);

    cr_assert_eq(rr_engine_open(NULL, NULL, &e, &err), RR_E_ARG);
    cr_assert_eq(rr_engine_open(m, NULL, NULL, &err), RR_E_ARG);
    rr_engine_close(NULL);
    rr_engine_describe(NULL, &(rr_engine_info){0});
    rr_engine_describe(e, NULL);
    rr_engine_stats(NULL, &st);
    rr_engine_stats(e, NULL);
    cr_assert_eq(rr_engine_backlog_us(NULL), 0);
    cr_assert_eq(rr_engine_check(NULL, 1, &err), RR_E_ARG);
    cr_assert_eq(rr_engine_check(e, -1, &err), RR_E_ARG);

    cr_assert_eq(rr_score(NULL, good, &good, 1, &score, &err), RR_E_ARG);
    cr_assert_eq(rr_score(e, good, &good, 1, NULL, &err), RR_E_ARG);
    cr_assert_eq(rr_score(e, good, NULL, 1, &score, &err), RR_E_ARG);
    cr_assert_eq(rr_score(e, good, NULL, 0, NULL, &err), RR_E_ARG);
    cr_assert(strstr(err.text, "no documents"));
    cr_assert_eq(rr_score(e, bad, &good, 1, &score, &err), RR_E_ARG);
    cr_assert_eq(rr_score(e, good, &bad, 1, &score, &err), RR_E_ARG);
    cr_assert_eq(rr_score(e, (rr_str){NULL, 0}, &(rr_str){NULL, 0}, 1, &score, &err), RR_OK);
    cr_assert_eq(rr_submit(e, good, &good, 1, NULL, NULL, NULL, NULL, &err), RR_E_ARG);
    cr_assert_eq(rr_submit_pairs(e, NULL, &good, 1, NULL, NULL, NULL, &job, &err), RR_E_ARG);
    cr_assert_eq(rr_submit_pairs(e, &bad, &good, 1, NULL, NULL, NULL, &job, &err), RR_E_ARG);
    cr_assert_eq(rr_submit_ids(e, NULL, cu, NULL, 1, NULL, NULL, NULL, &job, &err), RR_E_ARG);
    cr_assert_eq(rr_submit_ids(e, ids, NULL, NULL, 1, NULL, NULL, NULL, &job, &err), RR_E_ARG);
    cr_assert_eq(rr_submit_ids(e, ids, cu, NULL, 2, NULL, NULL, NULL, &job, &err), RR_E_ARG);
    cr_assert(strstr(err.text, "token id 99"));
    cr_assert_eq(rr_submit_ids(e, ids, cu, seg, 1, NULL, NULL, NULL, &job, &err), RR_E_ARG);
    cu[1] = 0;
    cr_assert_eq(rr_submit_ids(e, ids, cu, NULL, 1, NULL, NULL, NULL, &job, &err), RR_E_ARG);
    cr_assert_null(job);

    cr_assert_eq(rr_wait(NULL, &err), RR_E_ARG);
    cr_assert_eq(rr_job_status(NULL, NULL), RR_E_ARG);
    cr_assert_null(rr_job_scores(NULL, &n));
    cr_assert_eq(n, 0);
    cr_assert_null(rr_job_docs(NULL, NULL));
    rr_job_timing(NULL, &timing);
    rr_cancel(NULL);
    rr_job_free(NULL);
    rr_engine_close(e);
    rr_model_close(m);
    tiny_model_remove(&t);
}

Test(api, options_are_checked) {
    tiny                 t;
    rr_model            *m = tiny_open(&t);
    rr_engine           *e = NULL;
    rr_error             err = {0};
    rr_job              *job = NULL;
    rr_str               doc = RR_STR("a");
    const rr_engine_opts bad[] = {
        {.backend = "abacus"},
        {.precision = "fp7"},
        {.instances = -1},
        {.instances = 1000},
        {.threads = -2},
        {.max_batch_tokens = -1},
        {.max_queue_tokens = -5},
        {.max_length = 17},
        {.max_length = -1},
        {.max_batch_tokens = 8},
        {.max_wait_us = -1},
        {.fast = 2},
        {.cache_tokens = -2},
        {.truncation = 17},
        {.side = 2},
        {.max_batch_seqs = INT32_MAX},
        {.max_wait_us = 1 << 30},
        {.tokenize_threads = -1},
        {.precision = "int8", .backend = "ref"},
    };
    const rr_submit_opts wrong[] = {{.max_length = 4},  {.max_length = 17}, {.max_length = -1},
                                    {.max_query = -1},  {.max_doc = -1},    {.priority = 101},
                                    {.priority = -101}, {.truncation = -1}, {.side = 3},
                                    {.deadline_us = -1}};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err.text[0] = 0;
        cr_assert_lt(rr_engine_open(m, &bad[i], &e, &err), 0, "case %zu", i);
        cr_assert_neq(err.text[0], 0);
        cr_assert_null(e);
    }
    e = tiny_engine(m, NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert_eq(rr_submit(e, doc, &doc, 1, &wrong[i], NULL, NULL, &job, &err), RR_E_ARG,
                     "case %zu", i);
        cr_assert_null(job);
    }
    rr_engine_close(e);
    rr_model_close(m);
    tiny_model_remove(&t);
}

Test(api, requests_too_large_or_too_long) {
    enum { N = 3000 };
    static rr_str  docs[N];
    static float   scores[N];
    tiny           t;
    rr_model      *m = tiny_open(&t);
    rr_engine     *e = tiny_engine(m, &(rr_engine_opts){.max_queue_tokens = 20000});
    rr_submit_opts strict = {.truncation = RR_TRUNC_ERROR}, late = {.deadline_us = 1};
    rr_error       err = {0};
    rr_job        *job = NULL;
    rr_stats       st;

    for (int i = 0; i < N; i++)
        docs[i] = RR_STR("a b c");
    cr_assert_eq(rr_score(e, RR_STR("a"), docs, 2500, scores, &err), RR_OK, "%s", err.text);
    for (int i = 1; i < 2500; i++)
        cr_assert_eq(scores[i], scores[0]);
    cr_assert_eq(rr_score(e, RR_STR("a"), docs, N, scores, &err), RR_E_TOO_LARGE);
    cr_assert(strstr(err.text, "20000"));
    cr_assert_eq(rr_submit(e, RR_STR("a"), docs3, 3, &strict, NULL, NULL, &job, &err),
                 RR_E_TOO_LARGE);
    cr_assert(strstr(err.text, "document 2"), "%s", err.text);
    cr_assert_eq(rr_submit(e, RR_STR("a"), docs3, 3, &late, NULL, NULL, &job, &err), RR_E_TIMEOUT);
    cr_assert_null(job);
    rr_engine_stats(e, &st);
    cr_assert_eq(st.rejected_deadline, 1);
    cr_assert_eq(st.jobs, 1);
    rr_engine_close(e);
    rr_model_close(m);
    tiny_model_remove(&t);
}

/* Large enough for the pool: every document has its own length, and lands in its own place. */
Test(api, a_large_request_is_shared_and_put_together_in_order) {
    enum { N = 4000 };
    static rr_str      docs[N];
    static char        text[N][28];
    tiny               t;
    rr_model          *m = tiny_open(&t);
    rr_job            *job;
    const rr_doc_info *info;
    const float       *scores;
    float              by_length[12] = {0};
    size_t             n;

    for (int cached = 0; cached < 2; cached++) {
        rr_engine *e = tiny_engine(
            m, &(rr_engine_opts){.tokenize_threads = 4, .cache_tokens = cached ? 0 : -1});

        for (int i = 0; i < N; i++) {
            for (int k = 0; k < 1 + i % 11; k++)
                memcpy(text[i] + 2 * k, "a ", 2);
            docs[i] = (rr_str){text[i], (size_t)(1 + i % 11) * 2 - 1};
        }
        cr_assert_eq(rr_submit(e, RR_STR("b"), docs, N, NULL, NULL, NULL, &job, NULL), RR_OK);
        cr_assert_eq(rr_wait(job, NULL), RR_OK);
        info = rr_job_docs(job, &n);
        scores = rr_job_scores(job, NULL);
        cr_assert_eq(n, N);
        for (int i = 0; i < N; i++) {
            cr_assert_eq(info[i].kept, 5 + 1 + i % 11);
            if (i < 11 && !cached)
                by_length[i] = scores[i];
            cr_assert_eq(scores[i], by_length[i % 11]);
        }
        rr_job_free(job);
        rr_engine_close(e);
    }
    rr_model_close(m);
    tiny_model_remove(&t);
}

typedef struct seen {
    atomic_int n;
    rr_engine *e;
    rr_status  status, wait;
    int        left, free_it;
    atomic_int closed;
} seen;

static void note(rr_job *job, void *user) {
    seen *s = user;

    s->status = rr_job_status(job, NULL);
    s->wait = rr_wait(job, NULL); /* at once, as the job is finished */
    if (s->free_it)
        rr_job_free(job);
    atomic_fetch_add(&s->n, 1);
}

static void again(rr_job *job, void *user) {
    seen  *s = user;
    rr_str doc = RR_STR("a b");

    rr_job_free(job);
    if (atomic_fetch_add(&s->n, 1) < 50)
        cr_assert_eq(rr_submit(s->e, doc, &doc, 1, NULL, again, s, &job, NULL), RR_OK);
}

Test(api, done_runs_once_and_may_free_wait_and_submit) {
    tiny       t;
    rr_model  *m = tiny_open(&t);
    rr_engine *e = tiny_engine(m, NULL);
    seen       s[100] = {{0}}, chain = {.e = e};
    rr_job    *job[100], *first;

    for (int i = 0; i < 100; i++) {
        s[i].free_it = i % 2;
        cr_assert_eq(rr_submit(e, docs3[0], docs3, 1 + i % 3, NULL, note, &s[i], &job[i], NULL),
                     RR_OK);
    }
    cr_assert_eq(rr_submit(e, docs3[0], docs3, 1, NULL, again, &chain, &first, NULL), RR_OK);
    for (int i = 0; i < 100; i += 2) {
        cr_assert_eq(rr_wait(job[i], NULL), RR_OK);
        cr_assert_eq(atomic_load(&s[i].n), 1);
        rr_job_free(job[i]);
    }
    while (atomic_load(&chain.n) < 51)
        rr_engine_check(e, 1000000, NULL); /* meanwhile */
    rr_engine_close(e);                    /* all callbacks have returned */
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(atomic_load(&s[i].n), 1);
        cr_assert_eq(s[i].status, RR_OK);
        cr_assert_eq(s[i].wait, RR_OK);
    }
    rr_model_close(m);
    tiny_model_remove(&t);
}

Test(api, jobs_outlive_the_engine_and_may_be_left_unfinished) {
    tiny       t;
    rr_model  *m = tiny_open(&t);
    rr_engine *e = tiny_engine(m, NULL);
    rr_job    *kept, *left;
    size_t     n;

    cr_assert_eq(rr_submit(e, docs3[0], docs3, 3, NULL, NULL, NULL, &kept, NULL), RR_OK);
    cr_assert_eq(rr_submit(e, docs3[0], docs3, 3, NULL, NULL, NULL, &left, NULL), RR_OK);
    rr_job_free(left); /* cancels */
    rr_engine_close(e);
    rr_cancel(kept); /* too late, and harmless */
    cr_assert_eq(rr_wait(kept, NULL), RR_OK);
    cr_assert_not_null(rr_job_scores(kept, &n));
    cr_assert_eq(n, 3);
    rr_job_free(kept);
    rr_model_close(m);
    tiny_model_remove(&t);
}

typedef struct user {
    rr_engine *e;
    float      want[3];
    int        ok;
} user;

static void *use(void *arg) {
    user *u = arg;
    float scores[3];

    u->ok = 1;
    for (int i = 0; i < 60; i++) {
        rr_job *job;

        u->ok &= rr_score(u->e, RR_STR("a"), docs3, 3, scores, NULL) == RR_OK &&
                 memcmp(scores, u->want, sizeof scores) == 0;
        u->ok &= rr_submit(u->e, RR_STR("b"), docs3, 3, NULL, NULL, NULL, &job, NULL) == RR_OK;
        if (i % 2)
            rr_cancel(job);
        rr_wait(job, NULL);
        rr_job_free(job);
    }
    return NULL;
}

Test(api, many_threads_get_their_own_bits) {
    tiny       t;
    rr_model  *m = tiny_open(&t);
    rr_engine *e = tiny_engine(m, &(rr_engine_opts){.instances = 2, .tokenize_threads = 2});
    user       u[8];
    pthread_t  thread[8];

    for (int i = 0; i < 8; i++) {
        u[i].e = e;
        cr_assert_eq(rr_score(e, RR_STR("a"), docs3, 3, u[i].want, NULL), RR_OK);
        pthread_create(&thread[i], NULL, use, &u[i]);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(thread[i], NULL);
        cr_assert(u[i].ok);
    }
    rr_engine_close(e);
    rr_model_close(m);
    tiny_model_remove(&t);
}

Test(api, sigmoid) {
    cr_assert_eq(rr_sigmoid(0), 0.5f);
    cr_assert_eq(rr_sigmoid(200), 1);
    cr_assert_eq(rr_sigmoid(-200), (float)(1 / (1 + exp(200.0))));
    cr_assert_eq(rr_sigmoid(1.5f), (float)(1 / (1 + exp(-1.5))));
}
