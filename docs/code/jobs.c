/* jobs.c - many requests in flight: submit, go on, collect. The engine packs sequences of several
 * jobs into one forward pass; a job's scores are the same bits alone and in company. */
#include <rerank.h>
#include <stdio.h>

enum { JOBS = 4 };

/* Runs on a thread of the engine: hand over, do not work here. */
static void done(rr_job *job, void *user) {
    *(rr_status *)user = rr_job_status(job, NULL);
}

int main(int argc, char **argv) {
    const rr_str   query[JOBS] = {RR_STR("capital of France"), RR_STR("法国的首都"),
                                  RR_STR("capital de Francia"), RR_STR("longest river of France")};
    const rr_str   docs[] = {RR_STR("Paris is the capital of France."),
                             RR_STR("The Loire is the longest river of France.")};
    rr_submit_opts opts = {.max_length = 128};
    rr_error       err = {0};
    rr_model      *model = NULL;
    rr_engine     *engine = NULL;
    rr_job        *job[JOBS] = {NULL};
    rr_status      result[JOBS];
    rr_status      s = rr_model_open(argc > 1 ? argv[1] : "models/mini", &model, &err);

    if (!s)
        s = rr_engine_open(model, NULL, &engine, &err);
    for (int i = 0; i < JOBS && !s; i++) /* docs may be freed as soon as this returns */
        s = rr_submit(engine, query[i], docs, 2, &opts, done, &result[i], &job[i], &err);
    for (int i = 0; i < JOBS && job[i]; i++) {
        rr_timing t;

        if (!rr_wait(job[i], s ? NULL : &err)) {
            const float *logit = rr_job_scores(job[i], NULL);

            rr_job_timing(job[i], &t);
            printf("%-24s %.4f %.4f  %s\n", query[i].ptr, (double)rr_sigmoid(logit[0]),
                   (double)rr_sigmoid(logit[1]), rr_status_name(result[i]));
        }
        rr_job_free(job[i]);
    }
    if (s)
        fprintf(stderr, "%s: %s\n", rr_status_name(s), err.text);
    rr_engine_close(engine);
    rr_model_close(model);
    return s != RR_OK;
}
