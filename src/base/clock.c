/* clock.c - see clock.h. */
#include "base/clock.h"

#include <time.h>

int64_t rr__now_ns(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t rr_now_us(void) {
    return rr__now_ns() / 1000;
}
