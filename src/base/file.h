/* file.h - whole files: as read-only bytes, and written so that a reader never meets half of one. */
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

/* Write bytes to path.part and rename it: path is whole, or what it was. */
rr_status rr__file_save(const char *path, const void *bytes, size_t size, rr_error *err);

#endif
