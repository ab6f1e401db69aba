/* card.h - the CUDA backend for the tests that need a card; without one they skip with the
 * reason. */
#ifndef TESTS_BACKEND_CARD_H
#define TESTS_BACKEND_CARD_H

#include "truth.h"

#include <stdio.h>

/* The backend, or NULL with the reason on stderr. */
static const rr__backend *cuda(void) {
    const rr__backend *b = NULL;
    rr_error           err = {0};

    if (rr__backend_find("cuda", &b, &err) == RR_OK)
        return b;
    fprintf(stderr, "skip: cuda: %s\n", err.text);
    return NULL;
}
#define NEED_CARD(b)                                                                               \
    const rr__backend *b = cuda();                                                                 \
    if (!b)                                                                                        \
    cr_skip_test("no card")

#endif
