/* clock.h - the one clock: rr_now_us() of rerank.h, and nanoseconds for kernels. */
#ifndef RR_BASE_CLOCK_H
#define RR_BASE_CLOCK_H

#include "rerank.h"

int64_t rr__now_ns(void);

#endif
