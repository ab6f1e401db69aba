/* gunzip.c - see gunzip.h. */
#define ZLIB_CONST
#include "server/gunzip.h"

#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

enum { GZIP_ONLY = 16 + MAX_WBITS, FIRST = 16 * 1024, RATIO = 4 };

/* Room for more output, but never beyond limit bytes in all. */
static rr__gunzip_rc grow(char **out, size_t *cap, size_t limit) {
    size_t want = *cap > limit / 2 ? limit : *cap * 2;
    char  *more;

    if (*cap == limit)
        return RR__GUNZIP_LARGE;
    more = realloc(*out, want);
    if (!more)
        return RR__GUNZIP_NOMEM;
    *out = more;
    *cap = want;
    return RR__GUNZIP_OK;
}

rr__gunzip_rc rr__gunzip(const char *ptr, size_t len, size_t most, char **out, size_t *n,
                         size_t *cap) {
    const size_t  limit = most + 1; /* the byte too many shows that there are too many */
    z_stream      z = {.next_in = (const Bytef *)ptr, .avail_in = (uInt)len};
    rr__gunzip_rc rc = RR__GUNZIP_OK;
    int           status = Z_OK;

    *out = NULL;
    *n = 0;
    if (len == 0 || len > UINT_MAX || most >= UINT_MAX)
        return RR__GUNZIP_BAD;
    *cap = len > limit / RATIO ? limit : len * RATIO < FIRST ? FIRST : len * RATIO;
    *cap = *cap > limit ? limit : *cap;
    *out = malloc(*cap);
    if (!*out || inflateInit2(&z, GZIP_ONLY) != Z_OK) {
        free(*out);
        *out = NULL;
        return RR__GUNZIP_NOMEM;
    }
    while (rc == RR__GUNZIP_OK && !(status == Z_STREAM_END && z.avail_in == 0)) {
        if (status == Z_STREAM_END) /* another member follows */
            inflateReset(&z);
        z.next_out = (Bytef *)*out + *n;
        z.avail_out = (uInt)(*cap - *n);
        status = inflate(&z, Z_NO_FLUSH);
        *n = *cap - z.avail_out;
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
            rc = status == Z_MEM_ERROR ? RR__GUNZIP_NOMEM : RR__GUNZIP_BAD;
        else if (z.avail_out == 0 && !(status == Z_STREAM_END && z.avail_in == 0))
            rc = grow(out, cap, limit);
        else if (status != Z_STREAM_END && z.avail_in == 0)
            rc = RR__GUNZIP_BAD; /* cut off */
    }
    inflateEnd(&z);
    if (rc == RR__GUNZIP_OK && *n > most)
        rc = RR__GUNZIP_LARGE;
    if (rc != RR__GUNZIP_OK) {
        free(*out);
        *out = NULL;
    }
    return rc;
}
