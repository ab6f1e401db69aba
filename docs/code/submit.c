/* submit.c - many requests in flight: the engine batches them, a callback says when each is done.
 *
 *     cc submit.c $(pkg-config --cflags --libs rerank) -o submit && ./submit MODEL_DIR */
#include <rerank.h>

#include <stdatomic.h>
#include <stdio.h>

enum { REQUESTS = 8 };

/* Runs on a thread of the engine: note it and return. A server would wake its event loop here. */
static void done(rr_job *job, void *user) {
    atomic_fetch_add((atomic_int *)user, rr_job_status(job, NULL) == RR_OK);
}

int main(int argc, char **argv) {
    rr_error   err = {0};
    rr_model  *model = NULL;
    rr_engine *engine = NULL;
    rr_job    *job[REQUESTS] = {NULL};
    rr_str docs[] = {RR_STR("The Seine is a river."), RR_STR("Paris is the capital of France.")};
    atomic_int finished = 0;
    rr_status  s = rr_model_open(argc > 1 ? argv[1] : "models/mini", &model, &err);

    if (!s)
        s = rr_engine_open(model, NULL, &engine, &err);
    for (int i = 0; i < REQUESTS && !s; i++) { /* texts may be freed as soon as rr_submit returns */
        rr_submit_opts opts = {.deadline_us = rr_now_us() + 30000000, .max_length = 128};

        s = rr_submit(engine, RR_STR("capital of France"), docs, 2, &opts, done, &finished, &job[i],
                      &err);
    }
    for (int i = 0; i < REQUESTS && job[i]; i++) {
        rr_status waited = rr_wait(job[i], s ? NULL : &err);

        s = s ? s : waited;
    }
    if (!s) {
        size_t             n;
        const float       *logit = rr_job_scores(job[0], &n);
        const rr_doc_info *info = rr_job_docs(job[0], NULL);
        rr_timing          t;

        rr_job_timing(job[0], &t);
        for (size_t i = 0; i < n; i++)
            printf("%.4f  %d tokens\n", (double)rr_sigmoid(logit[i]), (int)info[i].kept);
        fprintf(stderr, "first request: %lld us, %d batches\n", (long long)t.total_us,
                (int)t.batches);
    } else {
        fprintf(stderr, "%s: %s\n", rr_status_name(err.status), err.text);
    }
    for (int i = 0; i < REQUESTS; i++)
        if (job[i])
            rr_job_free(job[i]);
    rr_engine_close(engine); /* returns after the last callback */
    if (!s)
        printf("%d requests done\n", atomic_load(&finished));
    rr_model_close(model);
    return s != RR_OK;
}
