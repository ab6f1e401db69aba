/* gunzip.h - Content-Encoding: gzip of a request body, by zlib. A pure function over bytes:
 * fuzz/fuzz_gunzip.c. work.c calls it, so that a bomb costs a worker's time and no more than `most`. */
#ifndef RR_SERVER_GUNZIP_H
#define RR_SERVER_GUNZIP_H

#include <stddef.h>

typedef enum rr__gunzip_rc {
    RR__GUNZIP_OK,
    RR__GUNZIP_BAD,   /* not gzip, damaged, cut off, or followed by something else */
    RR__GUNZIP_LARGE, /* more than `most` bytes come out                           */
    RR__GUNZIP_NOMEM
} rr__gunzip_rc;

/* One or more members end to end. On RR__GUNZIP_OK *out is malloc'd, of *cap bytes, *n in use. */
rr__gunzip_rc rr__gunzip(const char *ptr, size_t len, size_t most, char **out, size_t *n,
                         size_t *cap);

#endif
