/* ids_ref MODEL < lines of ids: the reference backend's logit of each line, one a line. */
#include "backend/backend.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    static int32_t     ids[8192];
    static char        line[1 << 16];
    rr__backend_opts   o = {.max_batch_tokens = 8192, .max_batch_seqs = 1};
    const rr__backend *b;
    rr__model         *m;
    void              *weights, *instance;
    rr_error           err;

    if (argc != 2 || rr__model_open(argv[1], &m, &err) || rr__backend_find("ref", &b, &err) ||
        b->load(m, &o, &weights, &err) || b->open(weights, &instance, &err)) {
        fprintf(stderr, "ids_ref: %s\n", argc == 2 ? err.text : "usage: ids_ref MODEL");
        return 1;
    }
    while (fgets(line, sizeof line, stdin)) {
        int32_t n = 0, cu[2] = {0, 0};
        float   logit;
        char   *p = line, *end;

        while (n < 8192 && (ids[n] = (int32_t)strtol(p, &end, 10), end > p)) {
            p = end;
            n++;
        }
        cu[1] = n;
        if (b->score(instance, &(rr__batch){1, n, n, ids, cu, NULL}, &logit, &err)) {
            fprintf(stderr, "ids_ref: %s\n", err.text);
            return 1;
        }
        printf("%.9g\n", logit);
    }
    b->close(instance);
    b->unload(weights);
    rr__model_close(m);
    return 0;
}
