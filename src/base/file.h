/* file.h - whole files as read-only bytes. */
#ifndef RR_BASE_FILE_H
#define RR_BASE_FILE_H

#include "base/error.h"

typedef struct rr__file {
    const void *ptr; /* NULL for an empty file */
    size_t      size;
} rr__file;

/* Map a whole regular file read-only. On failure *out is untouched and nothing leaks. */
rr_status rr__file_map(const char *path, rr__file *out, rr_error *err);
void      rr__file_unmap(rr__file *file);

#endif
