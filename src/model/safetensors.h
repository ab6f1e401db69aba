/* safetensors.h - the header of a .safetensors file, and the index of a sharded one.
 *
 *     8 bytes   header length n, little-endian
 *     n bytes   {"name": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}, ...}
 *     the rest  tensor data; offsets count from its start
 *
 * Both parsers are pure functions over bytes that may be hostile; model.c is their caller. As the
 * safetensors library does, a file is refused unless its tensors cover the data exactly: no overlap,
 * no hole, nothing past the end. */
#ifndef RR_MODEL_SAFETENSORS_H
#define RR_MODEL_SAFETENSORS_H

#include "base/arena.h"

enum { RR__ST_RANK = 8, RR__ST_NAME = 256 }; /* most dimensions, and bytes of a name */

typedef struct rr__st_tensor {
    const char *name;      /* printable, at most RR__ST_NAME bytes  */
    const char *file;      /* as given to the parser, for messages  */
    char        dtype[12]; /* "F32", "I64", ... one that is defined */
    int32_t     rank;
    int64_t     shape[RR__ST_RANK];
    const void *data;  /* inside the bytes given to the parser */
    size_t      bytes; /* product of shape * bytes of a dtype  */
} rr__st_tensor;

typedef struct rr__st {
    rr__st_tensor *tensor; /* [n], by name */
    size_t         n;
} rr__st;

/* "model.safetensors.index.json": which shard holds which tensor. */
typedef struct rr__st_index {
    const char **name;  /* [n] tensors            */
    int32_t     *shard; /* [n] index into file    */
    size_t       n;
    const char **file; /* [n_file] plain file names, none twice */
    int32_t      n_file;
} rr__st_index;

/* file is used in messages and kept. Everything in out lives in the arena or in the bytes. */
rr_status rr__st_parse(const char *file, const void *ptr, size_t size, rr__arena *a, rr__st *out,
                       rr_error *err);
rr_status rr__st_index_parse(const char *file, const void *ptr, size_t size, rr__arena *a,
                             rr__st_index *out, rr_error *err);

/* Put a table gathered by hand (from shards) in the order that rr__st_find needs. */
void rr__st_sort(rr__st *st);

/* By name; NULL if there is none. */
const rr__st_tensor *rr__st_find(const rr__st *st, const char *name);

#endif
