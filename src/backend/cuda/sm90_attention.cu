/* sm90_attention.cu - ctx = softmax(q k^T / 8) v within each sequence, on Hopper, 64 wide heads.
 *
 * A block has 128 query rows of one head, a warpgroup 64 of them (none, if the sequence ends
 * before); in batches too small to fill the card each warpgroup is a block of its own, or, in fast,
 * shares its rows with another that takes the second half of the keys. Keys and values come in
 * blocks of 64 through a ring of stages, filled by one thread with bulk tensor copies. Scores and
 * context stay in registers; the running maximum and sum of a row are rescaled as blocks come (exp2,
 * the scale folded in). Two blocks share a multiprocessor, so that of four warpgroups some multiply
 * while others take exponentials.
 *
 * The bits of a row depend on its sequence only (but for fast): the blocks of keys are the same in
 * any batch, and what lies beyond the sequence's end is replaced by zeros before it is multiplied.
 * 4 flops and 1 exp2 a (query, key) and dimension or pair; at width 64 the exponentials take as
 * long as the products. */
#include "kernels.h"
#include "sm90_map.cuh"
#include "sm90_ptx.cuh"

namespace {

enum { APART = 264 }; /* up to so many warpgroups each is a block of its own */
enum { KEYS = 64, TILE = KEYS * 128 };

/* What a block is: two warpgroups with 64 rows each, one, or two with the same 64 rows, but half of
 * the keys and a ring each. */
enum { PAIR, SINGLE, HALVES };
template <int MODE> struct Plan {
    static const int WARPGROUPS = MODE == SINGLE ? 1 : 2, RINGS = MODE == HALVES ? 2 : 1;
    static const int ROWS = MODE == PAIR ? 128 : 64, STAGES = MODE == HALVES ? 3 : 4;
    static const int RING = STAGES * 2 * TILE, QUERIES = ROWS * 128;
    static const int SMEM = QUERIES + RINGS * RING + 128;
};

struct Args {
    const int32_t     *cu;
    const rr__cu_tile *tile;
    void              *ctx;
    int                n_head, d, ld_ctx;
    float              out_scale;
};

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* The part of one thread: rows lane / 4 and + 8 of its warp's 16, two of every eight columns. */
template <class T, class Out> struct Rows {
    float    o[32], l[2];     /* context, sum (this thread's columns)                           */
    float    m[2], alpha[2];  /* what is subtracted from scores (log2), what a rise of it makes of
                                  what is summed so far                                          */
    uint32_t p[KEYS / 16][4]; /* a block's weights, rounded                                     */

    __device__ __forceinline__ void init(void) {
#pragma unroll
        for (int i = 0; i < 32; i++)
            o[i] = 0.0f;
        m[0] = m[1] = -INFINITY;
        l[0] = l[1] = 0.0f;
    }
    /* Scores of one block, of which the first `keys` exist, to weights. m follows the maximum only
     * when that is 2^8 above: weights up to 2^8 are as exact as those up to 1, and o seldom needs
     * to be rescaled. */
    __device__ __forceinline__ void weigh(float (&s)[KEYS / 2], int keys, int lane) {
        const float scale = 0.125f * 1.44269504f; /* log2 e / sqrt 64 */
        if (keys < KEYS) {
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (8 * j + 2 * (lane & 3) + (i & 1) >= keys)
                        s[4 * j + i] = -INFINITY;
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float a = fmaxf(s[2 * h], s[2 * h + 1]);
#pragma unroll
            for (int j = 1; j < KEYS / 8; j++)
                a = fmaxf(a, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
            a = fmaxf(a, __shfl_xor_sync(~0u, a, 1));
            a = fmaxf(a, __shfl_xor_sync(~0u, a, 2));
            float top = a * scale, before = m[h];
            m[h] = top > before + 8.0f ? top : before;
            alpha[h] = exp2_fast(before - m[h]); /* exactly 1 where nothing rose */
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float sum = 0.0f;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
                s[4 * j + 2 * h] = exp2_fast(fmaf(s[4 * j + 2 * h], scale, -m[h]));
                s[4 * j + 2 * h + 1] = exp2_fast(fmaf(s[4 * j + 2 * h + 1], scale, -m[h]));
                sum += s[4 * j + 2 * h] + s[4 * j + 2 * h + 1];
            }
            l[h] = l[h] * alpha[h] + sum;
        }
    }
    __device__ __forceinline__ int rose(void) const {
        return __any_sync(~0u, alpha[0] != 1.0f || alpha[1] != 1.0f);
    }
    /* When no product writes o any more. */
    __device__ __forceinline__ void rescale(void) {
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                o[4 * j + i] *= alpha[i >> 1];
    }
    /* When no product reads p any more. */
    __device__ __forceinline__ void take(const float (&s)[KEYS / 2]) {
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                p[j / 2][j % 2 * 2 + h] = pack(s[4 * j + 2 * h], s[4 * j + 2 * h + 1], T());
    }
    /* This thread's part of what the other half of the keys made: from one warpgroup to the other
     * through shared memory, [36, 128 threads]. */
    __device__ __forceinline__ void hand_over(float *box) const {
#pragma unroll
        for (int i = 0; i < 32; i++)
            box[i * 128] = o[i];
#pragma unroll
        for (int h = 0; h < 2; h++)
            box[(32 + h) * 128] = l[h], box[(34 + h) * 128] = m[h];
    }
    __device__ __forceinline__ void join(const float *box) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float other = box[(34 + h) * 128], top = fmaxf(m[h], other);
            const float mine = exp2_fast(m[h] - top), its = exp2_fast(other - top);
            l[h] = l[h] * mine + box[(32 + h) * 128] * its;
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++)
                    o[4 * j + i] = o[4 * j + i] * mine + box[(4 * j + i) * 128] * its;
        }
    }
    /* The context through shared memory (the warpgroup's own queries, read by now) to 16-byte
     * stores; only rows of the sequence. */
    __device__ __forceinline__ void store(const Args &g, uint32_t smem, int token, int rows,
                                          int head, int warpgroup, int lane) {
        const int warp = threadIdx.x / 32 & 3, wide = (int)sizeof(Out) == 2;
        float     f[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            l[h] += __shfl_xor_sync(~0u, l[h], 1);
            l[h] += __shfl_xor_sync(~0u, l[h], 2);
            f[h] = g.out_scale / l[h];
        }
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int      r = warp * 16 + lane / 4 + 8 * h;
                int      byte = (8 * j + 2 * (lane & 3)) * (int)sizeof(Out);
                uint32_t at = smem + r * 128 + (((byte >> 4) ^ (r & 7)) << 4) + (byte & 15);
                uint32_t v = pack(o[4 * j + 2 * h] * f[h], o[4 * j + 2 * h + 1] * f[h], Out());
                if (wide)
                    asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(v) : "memory");
                else
                    asm volatile("st.shared.u16 [%0], %1;" ::"r"(at), "h"((uint16_t)v) : "memory");
            }
        sync_some(1 + warpgroup, 128);
        const int chunks = 64 * (int)sizeof(Out) / 16; /* of a row */
#pragma unroll
        for (int i = threadIdx.x & 127; i < 64 * chunks; i += 128) {
            int      r = i / chunks, c = i % chunks;
            uint4    v;
            uint32_t at = smem + r * 128 + ((c ^ (r & 7)) << 4);
            asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                         : "r"(at));
            if (r < rows)
                *(uint4 *)((Out *)g.ctx + (size_t)(token + r) * g.ld_ctx + head * 64 +
                           c * (16 / sizeof(Out))) = v;
        }
    }
};

/* Rows from `keys` on of a stage's values become 0: whatever lies behind the sequence, 0 times it
 * must be 0. Each warpgroup does so before its own products; both write the same. */
__device__ __forceinline__ void clear_values(uint32_t v, int keys, int warpgroup) {
    for (int i = keys * 8 + (threadIdx.x & 127); i < KEYS * 8; i += 128)
        asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(v + i * 16), "r"(0)
                     : "memory");
    fence_async();
    sync_some(1 + warpgroup, 128);
}

template <class T, class Out, int MODE>
__global__ void __launch_bounds__(128 * Plan<MODE>::WARPGROUPS, 2)
    attention(const __grid_constant__ CUtensorMap map, const Args g) {
    extern __shared__ __align__(1024) uint8_t raw[];
    typedef Plan<MODE> P;
    const int      STAGES = P::STAGES;
    const int      warpgroup = threadIdx.x / 128, lane = threadIdx.x & 31;
    const int      half = MODE == HALVES ? warpgroup : 0; /* of the keys */
    const uint32_t smem = smem_of(raw), rings = smem + P::QUERIES;
    const uint32_t ring = rings + half * P::RING;
    const uint32_t ready = rings + P::RINGS * P::RING; /* the queries */
    const uint32_t full = ready + 8 + half * 16 * STAGES, empty = full + 8 * STAGES;
    const bool     filler = threadIdx.x == half * 128;

    let_later_kernels_start();
    /* Tiles and offsets are of the upload, which ended before the first kernel of the pass began. */
    const int         head = blockIdx.x % g.n_head, place = blockIdx.x / g.n_head;
    const rr__cu_tile tile = g.tile[MODE == PAIR ? place : place / 2];
    if (tile.seq < 0)
        return;
    const int start = g.cu[tile.seq], len = g.cu[tile.seq + 1] - start;
    const int row0 = tile.row + (MODE == PAIR ? 0 : place % 2 * 64);
    if (row0 >= len)
        return;
    const int all = (len + KEYS - 1) / KEYS, second = all / 2; /* blocks of keys; second half's */
    const int first = half ? all - second : 0;
    const int blocks = MODE != HALVES ? all : half ? second : all - second;
    const int groups = MODE == PAIR && row0 + 64 < len ? 2 : 1;
    if (filler) {
        if (smem & 1023)
            asm volatile("trap;");
        for (int i = 0; i < STAGES; i++) {
            bar_init(full + 8 * i, 1);
            bar_init(empty + 8 * i, 4 * groups);
        }
        if (threadIdx.x == 0)
            bar_init(ready, 1);
        fence_bar_init();
        prefetch_map(&map);
    }
    wait_for_earlier_kernels();
    auto fill = [&](int i) { /* by the filler */
                             uint32_t bar = full + 8 * (i % STAGES),
                                      k = ring + i % STAGES * 2 * TILE;
                             bar_expect(bar, 2 * TILE);
                             tma_load(k, &map, bar, g.d + head * 64, start + (first + i) * KEYS);
                             tma_load(k + TILE, &map, bar, 2 * g.d + head * 64,
                                      start + (first + i) * KEYS);
    };
    if (threadIdx.x == 0) {
        bar_expect(ready, groups * 64 * 128);
        for (int i = 0; i < groups; i++)
            tma_load(smem + i * 64 * 128, &map, ready, head * 64, start + row0 + i * 64);
    }
    if (filler) {
        for (int i = 0; i < STAGES && i < blocks; i++)
            fill(i);
    }
    __syncthreads();
    if (MODE == PAIR ? warpgroup >= groups : blocks == 0)
        return;

    const int      at = MODE == PAIR ? warpgroup * 64 : 0; /* of the block's rows */
    const uint32_t queries = smem + at * 128;
    const uint64_t desc_q = tile_desc(queries);
    Rows<T, Out>   rows;
    float          s[KEYS / 2];
    rows.init();
    bar_wait(ready, 0);
    auto score = [&](int i) { /* s = q k^T of block i */
                              const uint64_t k = tile_desc(ring + i % STAGES * 2 * TILE);
#pragma unroll
                              for (int c = 0; c < 4; c++)
                                  wgmma<KEYS, T>::ss(s, desc_q + 2 * c, k + 2 * c, c);
    };
    auto gather = [&](int i) { /* o += p v of block i; 16 keys are 2,048 bytes of v */
                               const uint64_t v = tile_desc(ring + i % STAGES * 2 * TILE + TILE);
#pragma unroll
                               for (int c = 0; c < KEYS / 16; c++)
                                   wgmma_rows<T>::rs(rows.o, rows.p[c], v + 128 * c, 1);
    };
    /* The scores of the next block are asked for before this block's values are gathered, and
     * weighed while that goes on. */
    const int last = blocks - 1, left = len - (first + last) * KEYS;
    const int keys = left < KEYS ? left : KEYS;
    bar_wait(full, 0);
    wgmma_fence();
    score(0);
    wgmma_commit();
    wgmma_wait<0>();
    rows.weigh(s, last ? KEYS : keys, lane);
    rows.take(s);
    for (int i = 0; i < last; i++) {
        bar_wait(full + 8 * ((i + 1) % STAGES), (i + 1) / STAGES & 1);
        wgmma_fence();
        score(i + 1);
        wgmma_commit();
        gather(i);
        wgmma_commit();
        wgmma_wait<1>();
        rows.weigh(s, i + 1 < last ? KEYS : keys, lane);
        /* The weights are done before the wait only because a branch stands between: the compiler moves
         * a plain wait in front of them, and would merge two that are alike. */
        const int rose = rows.rose();
        wgmma_keep(s);
        if (rose) {
            wgmma_wait<0>();
            rows.rescale();
        } else {
            asm volatile("wgmma.wait_group.sync.aligned 0; // nothing rose" ::: "memory");
        }
        if (lane == 0)
            bar_arrive(empty + 8 * (i % STAGES));
        if (filler && i > 0 && i - 1 + STAGES < blocks) {
            bar_wait(empty + 8 * ((i - 1) % STAGES), (i - 1) / STAGES & 1);
            fill(i - 1 + STAGES);
        }
        __syncwarp();
        rows.take(s);
    }
    if (keys < KEYS)
        clear_values(ring + last % STAGES * 2 * TILE + TILE, keys, warpgroup);
    wgmma_fence();
    gather(last);
    wgmma_commit();
    wgmma_wait<0>();
    if (MODE == HALVES && second > 0) {
        float *box = (float *)(raw + P::QUERIES + P::RING) + (threadIdx.x & 127);
        if (half)
            rows.hand_over(box);
        sync_some(3, 256);
        if (half)
            return;
        rows.join(box);
    }
    rows.store(g, queries, start + row0 + at, len - row0 - at, head, warpgroup, lane);
}

template <class T, class Out, int MODE>
cudaError_t launch_with(const rr__cu_attention *a, CUtensorMapDataType type, cudaStream_t stream) {
    static rr__sm90_once ready;
    typedef Plan<MODE>   P;
    CUtensorMap          map;
    const int            d = a->n_head * 64;
    cudaError_t          e = rr__sm90_map(&map, type, 2, a->qkv, a->n_row, 3 * d, 3 * d, KEYS);
    if (e == cudaSuccess && !ready.here())
        e = cudaFuncSetAttribute(attention<T, Out, MODE>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, P::SMEM);
    if (e != cudaSuccess)
        return e;
    ready.here() = 1;
    Args                args = {a->cu, a->tile, a->ctx, a->n_head, d, a->ld_ctx, a->out_scale};
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = dim3((unsigned)(a->n_tile * a->n_head * (MODE == PAIR ? 1 : 2)));
    c.blockDim = dim3(128 * P::WARPGROUPS);
    c.dynamicSmemBytes = P::SMEM;
    c.stream = stream;
    c.attrs = &early;
    c.numAttrs = 1;
    return cudaLaunchKernelEx(&c, attention<T, Out, MODE>, map, (const Args)args);
}

template <class T, class Out>
cudaError_t launch(const rr__cu_attention *a, CUtensorMapDataType type, cudaStream_t stream) {
    if ((int64_t)a->n_row * a->n_head > APART * 64)
        return launch_with<T, Out, PAIR>(a, type, stream);
    return a->fast ? launch_with<T, Out, HALVES>(a, type, stream)
                   : launch_with<T, Out, SINGLE>(a, type, stream);
}

} // namespace

extern "C" int rr__cu_attention_sm90_fits(const rr__cu_attention *a) {
    return a->head_dim == 64 && a->n_tile > 0 && a->n_row > 0 &&
           (a->type == RR__CU_F16 || a->type == RR__CU_BF16) &&
           (a->out_type == a->type || a->out_type == RR__CU_E4M3);
}

extern "C" cudaError_t rr__cu_attention_sm90(const rr__cu_attention *a, cudaStream_t stream) {
    const CUtensorMapDataType f16 = CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    const CUtensorMapDataType bf16 = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    if (a->type == RR__CU_F16)
        return a->out_type == RR__CU_E4M3 ? launch<__half, __nv_fp8_e4m3>(a, f16, stream)
                                          : launch<__half, __half>(a, f16, stream);
    return a->out_type == RR__CU_E4M3 ? launch<__nv_bfloat16, __nv_fp8_e4m3>(a, bf16, stream)
                                      : launch<__nv_bfloat16, __nv_bfloat16>(a, bf16, stream);
}
