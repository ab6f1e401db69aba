/* error.h - how every function of the library reports failure.
 *
 * A function returns an rr_status and takes rr_error *err as its last argument (may be NULL):
 *
 *     if (size < 8)
 *         return rr__fail(err, RR_E_FORMAT, "%s: %zu bytes is too short for a header", path, size);
 */
#ifndef RR_BASE_ERROR_H
#define RR_BASE_ERROR_H

#include "rerank.h"

/* Fill *err (if not NULL) with one formatted line, cut to fit, and return status. */
rr_status rr__fail(rr_error *err, rr_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "prefix: " before the text of an error already filled; returns its status. */
rr_status rr__fail_prefix(rr_error *err, rr_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
