/* group.h - a ragged batch as padded ones that an engine's profiles take.
 *
 * TensorRT runs [rows, len] tensors within a profile's bounds. Sequences are sorted by length and cut
 * into groups so that padding plus a charge for each launch is least; a group is padded to its
 * longest sequence, to a multiple of 8, and to the profile's least rows and length. */
#ifndef RR_BACKEND_TRT_GROUP_H
#define RR_BACKEND_TRT_GROUP_H

#include "backend/trt/trt.h"

typedef struct rr__trt_group {
    int32_t first, n;  /* sequences order[first .. first + n)                        */
    int32_t profile;   /* of the engine                                              */
    int32_t rows, len; /* what runs: rows >= n, len >= the longest, within profile  */
} rr__trt_group;

/* The plan of one batch and its scratch, all allocated once. */
typedef struct rr__trt_groups {
    int32_t        n_group;
    int32_t       *order; /* [max_seqs] */
    rr__trt_group *group; /* [max_seqs] */
    int32_t        max_seqs, max_len;
    int64_t       *best;  /* [max_seqs + 1] least cost of the first i sequences      */
    int64_t       *sum;   /* [max_seqs + 1] their tokens                             */
    rr__trt_group *last;  /* [max_seqs + 1] the group that ends there                */
    int32_t       *count; /* [max_len + 2]                                           */
} rr__trt_groups;

/* For batches of at most max_seqs sequences and the profiles' longest. */
rr_status rr__trt_groups_open(rr__trt_groups *g, int32_t max_seqs, const rr__trt_profile *p,
                              int32_t n_profile, rr_error *err);
void      rr__trt_groups_close(rr__trt_groups *g);

/* Sequences of lengths cu[i + 1] - cu[i] >= 1. Every sequence is in one group; RR_E_TOO_LARGE if one is
 * longer than every profile. */
rr_status rr__trt_groups_plan(rr__trt_groups *g, const int32_t *cu, int32_t n,
                              const rr__trt_profile *p, int32_t n_profile, rr_error *err);

/* Of all profiles: the longest sequence, the most sequences, the largest tensor (rows * len). */
int32_t rr__trt_longest(const rr__trt_profile *p, int32_t n_profile);
int32_t rr__trt_most_rows(const rr__trt_profile *p, int32_t n_profile);
size_t  rr__trt_cells(const rr__trt_profile *p, int32_t n_profile);

#endif
