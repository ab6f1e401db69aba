/* cuda.h - what the host files of the CUDA backend share: the weights of a device, an instance's
 * memory, and how a failed call is told. Plain C; kernels.h is the door to the device.
 *
 *     module.c    the backend table: probe, describe
 *     weights.c   load: the model's tensors, converted on the device, in one allocation
 *     instance.c  open: one allocation for all activations, graphs; score
 *     plan.c      how much of everything: shapes, an instance's memory
 *     stage.c     a batch to what one copy takes to the device
 *     forward.c   the pass, the same steps in the same order as src/backend/ref/forward.c */
#ifndef RR_BACKEND_CUDA_CUDA_H
#define RR_BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/kernels.h"

#include <stdatomic.h>

/* A linear layer on the device. Where it is E4M3 or S8, so are the rows it reads: value = scale *
 * what is stored, after smoothing. From attention's output on, products and LayerNorms take rows in
 * the order opposite to that of what wrote them, so that they begin with those still in the L2. */
typedef struct rr__cu_linear {
    rr__cu_type type; /* weights.act, E4M3 or S8                                         */
    int32_t     n, k;
    void       *w;          /* [n, k]                                                     */
    float      *bias;       /* [n]                                                        */
    float      *w_scale;    /* [n] of E4M3 and S8, in_scale in it if that is not 0        */
    float      *inv_smooth; /* [k] what its rows are multiplied by, or NULL               */
    float       in_scale;   /* of all rows: from a calibration or a bound; 1 where nothing
                               is quantised; 0: each row has its own                       */
    int         backward;   /* rows from the last to the first                            */
} rr__cu_linear;

typedef struct rr__cu_layer {
    rr__cu_linear qkv;                           /* [3d, d] of all layers but the last */
    rr__cu_linear q, kv;                         /* [d, d], [2d, d] of the last        */
    rr__cu_linear o;                             /* [d, d]                             */
    rr__cu_linear f1;                            /* [f, d]                             */
    rr__cu_linear f2;                            /* [d, f]                             */
    float        *ln1_g, *ln1_b, *ln2_g, *ln2_b; /* [d]                                */
} rr__cu_layer;

typedef struct rr__cu_weights {
    const rr__model *m;
    rr__backend_opts opts;
    rr__precision    precision; /* never RR__AUTO                                            */
    rr__cu_type      act;       /* of activations: F16, BF16, F32                            */
    rr__cu_type      type;      /* of the matrices: act, E4M3 or S8, those kept in float act */
    int32_t          notes;     /* 1: S8 rows have a scale of their own and leave outliers out */
    size_t           mid_size;  /* bytes a value of mid takes, 8 bits beside 16 included     */
    float            sum_scale; /* residual sums are stored times this (fp16: 1/64), so that
                                   they do not overflow; the LayerNorm behind takes it out   */
    int32_t          sm, sm90;  /* compute capability, 90 for 9.0; 1 = Hopper kernels         */
    int32_t          tile_rows; /* query rows of an attention tile                            */
    char             device_name[64];

    char         *base; /* the one device allocation all below point into */
    size_t        bytes;
    atomic_size_t instance_bytes; /* of all instances now open */

    void         *tok_emb, *pos_emb, *type_emb; /* [V, d], [P, d], [T, d] of act            */
    float        *emb_g, *emb_b;                /* [d]                                      */
    rr__cu_layer *layer;                        /* [n_layer]                                */
    float        *head_w, *head_b;              /* [d, d], [d]                              */
    float        *out_w, *out_b;                /* [d], [1]                                 */
} rr__cu_weights;

/* One upload: ids, positions, offsets and tiles of a batch, packed for its shape, so that it is
 * one copy. Exists twice, pinned on the host and on the device. Offsets and tiles count from the
 * start of their part. */
typedef struct rr__cu_staging {
    int32_t     *tok, *pos; /* [n]                                   */
    int32_t     *cu;        /* [s1 + 1] of part 0, [s - s1 + 1] of 1 */
    rr__cu_tile *tile;      /* [n_tile]                              */
    size_t       bytes;
} rr__cu_staging;

/* What one pass works on: a batch, or the bucket of a graph with room for many batches. A batch of
 * more tokens than qkv has room for goes through attention in two parts of whole sequences. */
typedef struct rr__cu_shape {
    int32_t n, s, n_tile;
    int32_t n1, s1, n_tile1; /* of part 0; all, if there is no other */
} rr__cu_shape;

enum { RR__CU_GRAPHS = 12, RR__CU_LARGEST_GRAPH = 2048 /* tokens */ };

/* What a batch has for itself while another runs. */
enum { RR__CU_SLOTS = 2 };
typedef struct rr__cu_slot {
    char       *stage_dev, *stage_host; /* rr__cu_staging of the largest shape */
    float      *logits_host;            /* [s] pinned                          */
    int32_t     n_seq;
    cudaEvent_t uploaded, spun_on, slept_on;
    cudaEvent_t end; /* of the batch: one of the last two */
    int32_t     n_graph;
    struct {
        rr__cu_shape    shape;
        cudaGraphExec_t exec;
    } graph[RR__CU_GRAPHS]; /* rising shape.n */
} rr__cu_slot;

typedef struct rr__cu_instance {
    rr__cu_weights *w;
    cudaStream_t    stream, copies; /* copies: uploads of large batches while another runs */
    char           *base; /* the one device allocation; letters as in kernels.h, capacity n, s */
    size_t          bytes;
    int32_t         chunk; /* rows the feed-forward takes at a time, so that mid fits in wide */

    void        *x;         /* [n + 1, d] act: the residual stream; the spare row is for padding  */
    void        *x8;        /* [n + 1, d] E4M3 or S8 of x, later of ctx; NULL if not quantised    */
    float       *x_scale;   /* [n + 1]                                                            */
    void        *wide;      /* [wide_rows, 3d] qkv, its q later ctx; or [chunk, f] mid (+ S8)     */
    float       *mid_scale; /* [chunk] S8                                                         */
    rr__cu_note *x_note, *mid_note; /* [n + 1], [chunk] S8; NULL without notes                */
    void        *first;  /* [s, d] act: x of the first tokens, in the last layer and the head  */
    void        *first8; /* [s, d]                                                             */
    float *first_scale;  /* [s]                                                                */
    void  *first_q;      /* [s, d] act: q, then ctx                                            */
    float *halves;       /* [RR__CU_SPLIT_SIZE] in fast, else NULL                           */
    float *head;         /* [s, d] where wide was                                            */
    float *logits;       /* [s]                                                              */

    rr__cu_slot slot[RR__CU_SLOTS]; /* batch i has slot i % 2 from its start to its finish */
    int64_t    *order;              /* [s] sequences, longest first                         */
    /* batches so far; apart at most by 2. Only start changes the first, only finish the second. */
    atomic_uint_fast64_t started, finished;
} rr__cu_instance;

/* Say which call failed and why; RR_E_NOMEM for memory, RR_E_DEVICE for all else. */
rr_status rr__cu_fail(rr_error *err, cudaError_t e, const char *call, const char *file, int line);
#define RR__CU_TRY(call, err)                                                                      \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess)                                                                     \
            return rr__cu_fail(err, e_, #call, __FILE__, __LINE__);                                \
    } while (0)

/* Pass a failure on. */
#define RR__TRY(call)                                                                              \
    do {                                                                                           \
        rr_status s_ = (call);                                                                     \
        if (s_ != RR_OK)                                                                           \
            return s_;                                                                             \
    } while (0)

/* Bytes of an element, as in rr__dtype_size. */
static inline size_t rr__cu_type_size(rr__cu_type type) {
    return type == RR__CU_F32 ? 4 : type == RR__CU_F16 || type == RR__CU_BF16 ? 2 : 1;
}
static inline int rr__cu_is_8bit(rr__cu_type type) {
    return type == RR__CU_E4M3 || type == RR__CU_S8;
}

/* module.c: is device `ordinal` there and new enough? *sm may be NULL. */
rr_status rr__cu_device(int32_t ordinal, int32_t *sm, char name[64], rr_error *err);

/* weights.c */
rr_status rr__cu_load(const rr__model *m, const rr__backend_opts *o, void **weights, rr_error *err);
void      rr__cu_unload(void *weights);

/* instance.c */
rr_status rr__cu_open(void *weights, void **instance, rr_error *err);
rr_status rr__cu_score(void *instance, const rr__batch *b, float *logits, rr_error *err);
rr_status rr__cu_start(void *instance, const rr__batch *b, rr_error *err);
rr_status rr__cu_finish(void *instance, float *logits, rr_error *err);
rr_status rr__cu_observe(void *instance, const rr__batch *b, float *logits, rr__observe_fn fn,
                         void *user, rr_error *err);
void      rr__cu_close(void *instance);

/* plan.c: how many tokens qkv has room for, shapes, and memory */
int32_t      rr__cu_wide_rows(const rr__cu_weights *w);
rr__cu_shape rr__cu_whole(const rr__cu_weights *w, int32_t n,
                          int32_t s);                  /* one part, any lengths */
rr__cu_shape rr__cu_capacity(const rr__cu_weights *w); /* of the options, as if in one part */
rr__cu_shape rr__cu_shape_of(const rr__cu_weights *w, const rr__batch *b);
/* The staging of a shape in memory at base. */
rr__cu_staging rr__cu_staging_at(char *base, const rr__cu_shape *shape);
/* Set the pointers of r into base, or, if that is NULL, only add up the bytes. */
size_t rr__cu_plan(rr__cu_instance *r, const rr__cu_weights *w, char *base);
size_t rr__cu_instance_bytes(const rr__cu_weights *w);

/* stage.c */
/* The batch, padded to the shape, in memory at base; order: room for b->n_seq. */
void rr__cu_stage(const rr__cu_weights *w, const rr__batch *b, const rr__cu_shape *shape,
                  char *base, int64_t *order);

/* forward.c: put a pass over the batch staged in the slot on the instance's stream; logits stay on
 * the device. With watch it waits after each step and shows its result. */
typedef struct rr__cu_watcher {
    rr__observe_fn fn;
    void          *user;
    float         *host, *ctx, *before; /* [n, max(3d, f)], [n, d], [n, d] */
} rr__cu_watcher;
rr_status rr__cu_forward(rr__cu_instance *r, const rr__cu_slot *slot, const rr__cu_shape *shape,
                         rr__cu_watcher *watch, rr_error *err);

#endif
