/* score.c - rank documents for a query: open, score, close.
 *
 *     cc score.c $(pkg-config --cflags --libs rerank) -o score && ./score MODEL_DIR */
#include <rerank.h>

#include <stdio.h>

int main(int argc, char **argv) {
    rr_error   err;
    rr_model  *model = NULL;
    rr_engine *engine = NULL;
    rr_str docs[] = {RR_STR("The Seine is a river."), RR_STR("Paris is the capital of France.")};
    float  logit[2];
    int    failed = rr_model_open(argc > 1 ? argv[1] : "models/mini", &model, &err) ||
                 rr_engine_open(model, NULL, &engine, &err) ||
                 rr_score(engine, RR_STR("capital of France"), docs, 2, logit, &err);

    if (failed)
        fprintf(stderr, "%s: %s\n", rr_status_name(err.status), err.text);
    for (int i = 0; i < 2 && !failed; i++) /* in input order; logits, so that nothing is lost */
        printf("%.4f  %s\n", (double)rr_sigmoid(logit[i]), docs[i].ptr);
    rr_engine_close(engine); /* every close takes NULL */
    rr_model_close(model);
    return failed;
}
