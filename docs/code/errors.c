/* errors.c - every failure is a status to act on and a line that says what and where.
 *
 *     cc errors.c $(pkg-config --cflags --libs rerank) -o errors && ./errors MODEL_DIR */
#include <rerank.h>

#include <stdio.h>

static void say(const char *what, rr_status s, const rr_error *err) {
    printf("%-16s %s, HTTP %d\n", what, rr_status_name(s), rr_status_http(s));
    fprintf(stderr, "    %s\n", err->text);
}

int main(int argc, char **argv) {
    rr_error       err;
    rr_model      *model = NULL;
    rr_engine     *engine = NULL;
    rr_job        *job;
    rr_str         doc = RR_STR("one two three four five six seven eight nine ten");
    rr_submit_opts strict = {.max_length = 8, .truncation = RR_TRUNC_ERROR};
    rr_submit_opts late = {0};
    rr_engine_opts unknown = {.backend = "abacus"};
    rr_status      s;

    say("no such folder", rr_model_open("no/such/model", &model, &err), &err);
    s = rr_model_open(argc > 1 ? argv[1] : "models/mini", &model, &err);
    if (!s) {
        say("no such backend", rr_engine_open(model, &unknown, &engine, &err), &err);
        s = rr_engine_open(model, NULL, &engine, &err);
    }
    if (s) {
        fprintf(stderr, "%s: %s\n", rr_status_name(err.status), err.text);
        rr_model_close(model);
        return 1;
    }
    s = rr_submit(engine, RR_STR("count"), &doc, 1, &strict, NULL, NULL, &job, &err);
    say("too long", s, &err); /* refused whole: there is no job to free */
    late.deadline_us = rr_now_us();
    s = rr_submit(engine, RR_STR("count"), &doc, 1, &late, NULL, NULL, &job, &err);
    if (!s) { /* a deadline may also pass in the queue */
        s = rr_wait(job, &err);
        rr_job_free(job);
    }
    say("too late", s, &err);
    rr_engine_close(engine);
    rr_model_close(model);
    return 0;
}
