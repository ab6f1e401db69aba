/* rank.c - the shortest useful program: rank three documents for a query.
 *
 *     cc rank.c $(pkg-config --cflags --libs rerank) -o rank && ./rank models/mini */
#include <rerank.h>
#include <stdio.h>

int main(int argc, char **argv) {
    rr_error   err = {0};
    rr_model  *model = NULL;
    rr_engine *engine = NULL;
    rr_str     docs[] = {RR_STR("The Seine is a river."), RR_STR("Paris is the capital of France."),
                         RR_STR("Lyon is a city in France.")};
    float      logits[3];
    int        failed;

    failed = rr_model_open(argc > 1 ? argv[1] : "models/mini", &model, &err) ||
             rr_engine_open(model, NULL, &engine, &err) || /* NULL: the best backend that runs */
             rr_score(engine, RR_STR("capital of France"), docs, 3, logits, &err);
    if (failed)
        fprintf(stderr, "%s: %s\n", rr_status_name(err.status), err.text);
    for (int i = 0; i < 3 && !failed; i++)
        printf("%.4f  %s\n", (double)rr_sigmoid(logits[i]), docs[i].ptr);
    rr_engine_close(engine); /* every close takes NULL */
    rr_model_close(model);
    return failed;
}
