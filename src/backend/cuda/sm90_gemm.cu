/* sm90_gemm.cu - d = epilogue(a w^T) on Hopper: a [m, k], w [n, k], fp32 sums.
 *
 * One persistent block a multiprocessor. A producer warp fills a ring of shared-memory stages
 * (128 or 256 bytes of k) with bulk tensor copies; warpgroups of consumers multiply. TOGETHER: two
 * warpgroups share each tile, 64 rows each, so a stage is read by both and the widest product
 * (64 x 256) is used. In TURNS: each has a 128 x 128 tile of its own, and while one rounds and
 * stores, the other keeps the tensor cores busy. Blocks of a cluster share a row or a column of
 * tiles: each loads its part of the common operand and sends it to all. The weights of the first
 * tile are asked for before the kernels ahead in the stream have ended.
 *
 * Every sum is taken in order of k into one accumulator, 32 bytes of k an instruction, whatever the
 * tile: the bits of a row depend neither on m nor on the variant. */
#include "kernels.h"
#include "sm90_epilogue.cuh"
#include "sm90_map.cuh"
#include "sm90_ptx.cuh"
#include <type_traits>

namespace {

enum { TOGETHER, TURNS };
enum { TURN = 3 }; /* named barriers 3 and 4, one a warpgroup; 1 and 2 are the epilogue's */

/* One shape of block. CM blocks of a cluster share their columns (w), or CN their rows (a). */
template <class In_, class Out_, int BM_, int BN_, int WARPGROUPS_, int SCHEDULE_, int STAGES_,
          int BUFFERS_, int CM_, int CN_, int SLABS_>
struct Shape {
    static const bool SPLIT = std::is_same<Out_, float>::value; /* k in two halves */
    using Store = typename std::conditional<
        SPLIT, Sums<Shape>,
        typename std::conditional<BN_ % (128 / sizeof(Out_)) == 0, Stager<Shape>,
                                  Direct<Shape>>::type>::type;
    using In = In_;
    using Out = Out_;
    static const int  BM = BM_, BN = BN_, WARPGROUPS = WARPGROUPS_, SCHEDULE = SCHEDULE_;
    static const int  STAGES = STAGES_, BUFFERS = BUFFERS_, CM = CM_, CN = CN_, CLUSTER = CM * CN;
    static const int  THREADS = 128 * (WARPGROUPS + 1);
    static const int  SLABS = SLABS_; /* of 128 bytes of k in a stage */
    static const int  BK = SLABS * 128 / (int)sizeof(In);
    static const int  A_BYTES = SLABS * BM * 128, B_BYTES = SLABS * BN * 128;
    static const int  ROWS = SCHEDULE == TOGETHER ? BM / WARPGROUPS : BM; /* of one warpgroup */
    static const int  MT = ROWS / 64;
    static const int  CHUNK = 128 / (int)sizeof(Out);     /* columns of d in one staged box */
    static const bool STAGED = !SPLIT && BN % CHUNK == 0; /* else d is written from registers */
    static const int  CHUNK_BYTES = 64 * 128;
    static const int  STAGING = STAGED ? WARPGROUPS * BUFFERS * CHUNK_BYTES : 0;
    static const int  COLUMNS = STAGED ? WARPGROUPS * BN * (sizeof(In) == 1 ? 8 : 4) : 0;
    static const int  SMEM = STAGES * (A_BYTES + B_BYTES) + STAGING + COLUMNS + 256;
    /* Arrivals that free a stage: one a warp that reads it, from every block of the cluster. */
    static const int READERS = 4 * (SCHEDULE == TOGETHER ? WARPGROUPS : 1) * CLUSTER;
    static_assert(CM == 1 || CN == 1, "a cluster shares one operand");
    static_assert(SMEM <= 232448, "shared memory of one block");
    static_assert(2 * STAGES + WARPGROUPS * BUFFERS <= 32, "256 bytes of barriers");
};

/* Tiles of a cluster: rows of them, columns of them, all. */
template <class S> __host__ __device__ int tiles_down(int m) {
    return (m + S::BM * S::CM - 1) / (S::BM * S::CM);
}
template <class S> __host__ __device__ int tiles_across(int n) {
    return (n + S::BN * S::CN - 1) / (S::BN * S::CN);
}
template <class S> __host__ __device__ int tile_count(int m, int n) {
    return tiles_down<S>(m) * tiles_across<S>(n);
}
/* What a block does in turn t: its tile's first row and column, and steps of k. */
struct Work {
    int row, col, part, first, steps;
};
template <class S> __device__ __forceinline__ Work work_at(const Args &g, int t, int rank) {
    const int across = tiles_across<S>(g.n);
    const int steps = (g.k + S::BK - 1) / S::BK;
    Work      w = {0, 0, 0, 0, steps};
    if (S::SPLIT) {
        const int tiles = tile_count<S>(g.m, g.n);
        w.part = t / tiles, t -= w.part * tiles;
        w.first = w.part ? (steps + 1) / 2 : 0;
        w.steps = w.part ? steps / 2 : (steps + 1) / 2;
    }
    int       down = t / across;
    const int right = t - down * across;
    if (g.backward)
        down = tiles_down<S>(g.m) - 1 - down;
    w.row = (down * S::CM + (S::CM > 1 ? rank : 0)) * S::BM;
    w.col = (right * S::CN + (S::CN > 1 ? rank : 0)) * S::BN;
    return w;
}
template <class S> __host__ __device__ int turns(const Args &g) {
    return tile_count<S>(g.m, g.n) * (S::SPLIT ? 2 : 1);
}

template <class S>
__device__ __forceinline__ void produce(const CUtensorMap *map_a, const CUtensorMap *map_b,
                                        const Args &g, uint32_t smem, uint32_t full, uint32_t empty,
                                        int rank) {
    const uint16_t everyone = (uint16_t)((1 << S::CLUSTER) - 1);
    const int      all = turns<S>(g);
    int            stage = 0, parity = 1, early = 0, ahead = 0;
    auto load = [&](uint32_t dst, const CUtensorMap *map, int k, int row, int rows, int parts) {
        const int part = rows / parts; /* of the rows this block loads, for all */
#pragma unroll
        for (int i = 0; i < S::SLABS; i++, dst += rows * 128, k += S::BK / S::SLABS) {
            if (parts > 1)
                tma_load_all(dst + rank * part * 128, map, full + 8 * stage, k, row + rank * part,
                             everyone);
            else
                tma_load(dst, map, full + 8 * stage, k, row);
        }
    };
    for (int t = blockIdx.x / S::CLUSTER; t < all; t += gridDim.x / S::CLUSTER) {
        const Work w = work_at<S>(g, t, rank);
        if (!early) {
            /* The weights of the first tile are nobody's output: they come while earlier kernels
             * end. */
            ahead = w.steps < S::STAGES ? w.steps : S::STAGES;
            for (; stage < ahead; stage++) {
                bar_expect(full + 8 * stage, S::A_BYTES + S::B_BYTES);
                load(smem + stage * (S::A_BYTES + S::B_BYTES) + S::A_BYTES, map_b,
                     (w.first + stage) * S::BK, w.col, S::BN, S::CM);
            }
            stage = 0;
            wait_for_earlier_kernels();
        }
        for (int i = 0; i < w.steps; i++) {
            uint32_t a = smem + stage * (S::A_BYTES + S::B_BYTES), b = a + S::A_BYTES;
            int      k = (w.first + i) * S::BK;
            if (early >= ahead) {
                bar_wait(empty + 8 * stage, parity);
                bar_expect(full + 8 * stage, S::A_BYTES + S::B_BYTES);
                load(b, map_b, k, w.col, S::BN, S::CM);
            } else {
                early++;
            }
            load(a, map_a, k, w.row, S::BM, S::CN);
            if (++stage == S::STAGES)
                stage = 0, parity ^= 1;
        }
    }
}

/* Free a stage in every block that fills it for us. Called by all lanes of a warp. */
template <class S> __device__ __forceinline__ void release(uint32_t bar, int lane) {
    if (S::CLUSTER == 1) {
        if (lane == 0)
            bar_arrive(bar);
    } else {
        if (lane < S::CLUSTER)
            bar_arrive_at(bar, lane);
    }
}

/* The products of one tile: acc = a[ROWS, k] w[BN, k]^T, from ring position at. In TURNS a
 * warpgroup begins when the other has seen its last stage come: a barrier's parity tells a phase
 * from the next, not from the one after. */
template <class S>
__device__ __forceinline__ void multiply(float (&acc)[S::MT][S::BN / 2], int steps, uint32_t smem,
                                         uint32_t full, uint32_t empty, uint32_t at, int row0,
                                         int warpgroup, int lane) {
    if (S::SCHEDULE == TURNS)
        sync_some(TURN + warpgroup, 256);
    uint32_t stage = at % S::STAGES, parity = at / S::STAGES & 1, last = 0;
    for (int i = 0; i < steps; i++) {
        uint32_t a = smem + stage * (S::A_BYTES + S::B_BYTES), b = a + S::A_BYTES;
        bar_wait(full + 8 * stage, parity);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4 * S::SLABS; k++) {
            uint64_t desc_a = tile_desc(a + k / 4 * S::BM * 128 + row0 * 128) + k % 4 * 2;
            uint64_t desc_b = tile_desc(b + k / 4 * S::BN * 128) + k % 4 * 2;
#pragma unroll
            for (int mt = 0; mt < S::MT; mt++)
                wgmma<S::BN, typename S::In>::ss(acc[mt], desc_a + 512 * mt, desc_b, i | k);
        }
        wgmma_commit();
        wgmma_wait<1>();
        if (i > 0)
            release<S>(empty + 8 * last, lane);
        last = stage;
        if (++stage == S::STAGES)
            stage = 0, parity ^= 1;
    }
    if (S::SCHEDULE == TURNS)
        arrive_some(TURN + !warpgroup, 256);
    wgmma_wait<0>();
    release<S>(empty + 8 * last, lane);
}

template <class S>
__global__ void __launch_bounds__(S::THREADS, 1)
    gemm(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
         const __grid_constant__ CUtensorMap map_d, const __grid_constant__ CUtensorMap map_r,
         const Args g) {
    extern __shared__ __align__(1024) uint8_t raw[];
    const uint32_t smem = smem_of(raw), staging = smem + S::STAGES * (S::A_BYTES + S::B_BYTES);
    const uint32_t columns = S::STAGES * (S::A_BYTES + S::B_BYTES) + S::STAGING; /* in raw */
    const uint32_t full = smem + columns + S::COLUMNS, empty = full + 8 * S::STAGES;
    const uint32_t residual_bars = empty + 8 * S::STAGES;
    const int      warpgroup = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 & 3;
    const int      lane = threadIdx.x & 31, rank = S::CLUSTER > 1 ? (int)cluster_rank() : 0;

    let_later_kernels_start();
    if (threadIdx.x == 0) {
        if (smem & 1023)
            asm volatile("trap;");
        for (int i = 0; i < S::STAGES; i++) {
            bar_init(full + 8 * i, 1);
            bar_init(empty + 8 * i, S::READERS);
        }
        for (int i = 0; i < S::WARPGROUPS * S::BUFFERS; i++)
            bar_init(residual_bars + 8 * i, 1);
        fence_bar_init();
        prefetch_map(&map_a);
        prefetch_map(&map_b);
    }
    if (S::CLUSTER > 1)
        cluster_sync();
    else
        __syncthreads();

    if (warpgroup < 0) {
        if (S::WARPGROUPS > 1)
            regs_drop<40>();
        if (warp == 0 && lane == 0)
            produce<S>(&map_a, &map_b, g, smem, full, empty, rank);
    } else {
        if (S::WARPGROUPS > 1)
            regs_raise<232>();
        wait_for_earlier_kernels();
        const int         all = turns<S>(g);
        const int         row0 = S::SCHEDULE == TOGETHER ? warpgroup * S::ROWS : 0;
        float             acc[S::MT][S::BN / 2];
        uint32_t          at = 0, turn = 0;
        typename S::Store out;
        if constexpr (S::STAGED) {
            out.map_d = &map_d;
            out.map_r = &map_r;
            out.smem = staging + warpgroup * S::BUFFERS * S::CHUNK_BYTES;
            out.bars = residual_bars + warpgroup * S::BUFFERS * 8;
            out.parity = 0;
            out.columns = (float *)(raw + columns + warpgroup * (S::COLUMNS / S::WARPGROUPS));
            out.warpgroup = warpgroup;
        }
        out.warp = warp;
        out.lane = lane;
        if (S::SCHEDULE == TURNS && warpgroup == 1)
            arrive_some(TURN, 256);
        for (int t = blockIdx.x / S::CLUSTER; t < all; t += gridDim.x / S::CLUSTER) {
            const Work w = work_at<S>(g, t, rank);
            if (S::SCHEDULE == TOGETHER || (int)(turn++ % S::WARPGROUPS) == warpgroup) {
                const int row = w.row + row0;
                out.begin(g, row, w.col);
                multiply<S>(acc, w.steps, smem, full, empty, at, row0, warpgroup, lane);
                if constexpr (S::SPLIT)
                    out.store(g, acc, row, w.col, w.part);
                else if (g.epilogue == RR__CU_BIAS)
                    out.template store<RR__CU_BIAS>(g, acc, row, w.col);
                else if (g.epilogue == RR__CU_GELU)
                    out.template store<RR__CU_GELU>(g, acc, row, w.col);
                else
                    out.template store<RR__CU_RESIDUAL>(g, acc, row, w.col);
            }
            at += w.steps;
        }
        if constexpr (S::STAGED) /* what is being stored is read before the block's memory goes */
            if ((threadIdx.x & 127) == 0)
                tma_stores_read<0>();
    }
    /* A block leaves its cluster only when nobody can still reach into its shared memory. */
    if (S::CLUSTER > 1) {
        __syncwarp();
        cluster_sync();
    }
}

CUtensorMapDataType map_type(rr__cu_type t) {
    return t == RR__CU_F16    ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
           : t == RR__CU_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                              : CU_TENSOR_MAP_DATA_TYPE_UINT8;
}

template <class S> cudaError_t launch(const rr__cu_gemm *g, cudaStream_t stream) {
    CUtensorMap          a, b, d = {}, r = {};
    cudaError_t          e;
    const int            in = (int)sizeof(typename S::In), out = (int)sizeof(typename S::Out);
    static rr__sm90_once rooms; /* clusters that run at once */
    int                  room = rooms.here();
    cudaLaunchAttribute  at[2] = {};
    at[0].id = cudaLaunchAttributeClusterDimension;
    at[0].val.clusterDim.x = S::CLUSTER;
    at[0].val.clusterDim.y = at[0].val.clusterDim.z = 1;
    at[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    at[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.blockDim = dim3(S::THREADS);
    c.dynamicSmemBytes = S::SMEM;
    c.stream = stream;
    c.attrs = at;
    c.numAttrs = 1;
    c.gridDim = dim3(S::CLUSTER);
    if (!room) {
        int n = 0;
        e = cudaFuncSetAttribute(gemm<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM);
        if (e == cudaSuccess)
            e = cudaOccupancyMaxActiveClusters(&n, gemm<S>, &c);
        if (e != cudaSuccess)
            return e;
        rooms.here() = room = n;
    }
    if ((e = rr__sm90_map(&a, map_type(g->type), in, g->a, g->m, g->k, g->lda, S::BM / S::CN)) ||
        (e = rr__sm90_map(&b, map_type(g->type), in, g->w, g->n, g->k, g->k, S::BN / S::CM)))
        return e;
    if (S::STAGED) {
        e = rr__sm90_map(&d, map_type(g->out_type), out, g->d, g->m, g->n, g->ldd, 64);
        if (e == cudaSuccess && g->epilogue == RR__CU_RESIDUAL)
            e = rr__sm90_map(&r, map_type(g->out_type), out, g->residual, g->m, g->n, g->ldd, 64);
        if (e != cudaSuccess)
            return e;
    }
    Args args = {g->m,       g->n,        g->k, (int)g->epilogue, g->ldd,      g->bias, g->a_scale,
                 g->w_scale, g->residual, g->d, g->out_scale,     g->backward};
    int  tiles = turns<S>(args);
    c.gridDim = dim3((unsigned)((tiles < room ? tiles : room) * S::CLUSTER));
    c.numAttrs = 2;
    return cudaLaunchKernelEx(&c, gemm<S>, a, b, d, r, (const Args)args);
}

/* in, out, BM, BN, warpgroups, schedule, stages, buffers, cluster down, across, slabs */
template <class I, class O> using Square = Shape<I, O, 128, 128, 2, TURNS, 6, 2, 2, 1, 1>;
template <class I, class O> using Block = Shape<I, O, 128, 128, 2, TOGETHER, 6, 2, 1, 1, 1>;
template <class I, class O> using Deep64 = Shape<I, O, 64, 64, 1, TOGETHER, 6, 1, 1, 1, 2>;
template <class I> using Halves = Shape<I, float, 64, 64, 1, TOGETHER, 6, 1, 1, 1, 2>; /* of k */
template <class I, class O> using Deep32 = Shape<I, O, 64, 32, 1, TOGETHER, 9, 1, 1, 1, 2>;
#ifdef RR_LAB /* what lost (lab/README.md) */
template <class I, class O> using Wide = Shape<I, O, 128, 256, 2, TOGETHER, 4, 1, 2, 1, 1>;
template <class I, class O> using Tall = Shape<I, O, 64, 256, 2, TURNS, 4, 2, 2, 1, 1>;
template <class I, class O> using Tall5 = Shape<I, O, 64, 256, 2, TURNS, 5, 1, 2, 1, 1>;
template <class I, class O> using Block3 = Shape<I, O, 128, 128, 2, TOGETHER, 3, 2, 1, 1, 2>;
template <class I, class O> using Square5 = Shape<I, O, 128, 128, 2, TURNS, 5, 4, 2, 1, 1>;
template <class I, class O> using Across = Shape<I, O, 128, 128, 2, TURNS, 6, 2, 1, 2, 1>;
template <class I, class O> using Thin64 = Shape<I, O, 64, 64, 1, TOGETHER, 6, 1, 1, 1, 1>;
template <class I, class O> using Half64 = Shape<I, O, 64, 64, 1, TOGETHER, 3, 1, 1, 1, 2>;
template <class I, class O> using Deep16 = Shape<I, O, 64, 16, 1, TOGETHER, 11, 1, 1, 1, 2>;
enum {
    SQUARE,
    BLOCK,
    DEEP64,
    DEEP32,
    WIDE,
    SQUARE5,
    ACROSS,
    THIN64,
    HALF64,
    DEEP16,
    BLOCK3,
    TALL,
    TALL5,
    N_VARIANT
};
#else
enum { SQUARE, BLOCK, DEEP64, DEEP32 };
#endif

template <class I, class O>
cudaError_t launch_variant(const rr__cu_gemm *g, int variant, cudaStream_t stream) {
    switch (variant) {
    case SQUARE:
        return launch<Square<I, O>>(g, stream);
    case BLOCK:
        return launch<Block<I, O>>(g, stream);
    case DEEP64:
        return launch<Deep64<I, O>>(g, stream);
#ifdef RR_LAB
    case TALL:
        return launch<Tall<I, O>>(g, stream);
    case TALL5:
        return launch<Tall5<I, O>>(g, stream);
    case BLOCK3:
        return launch<Block3<I, O>>(g, stream);
    case WIDE:
        return launch<Wide<I, O>>(g, stream);
    case SQUARE5:
        return launch<Square5<I, O>>(g, stream);
    case ACROSS:
        return launch<Across<I, O>>(g, stream);
    case THIN64:
        return launch<Thin64<I, O>>(g, stream);
    case HALF64:
        return launch<Half64<I, O>>(g, stream);
    case DEEP16:
        return launch<Deep16<I, O>>(g, stream);
#endif
    default:
        return launch<Deep32<I, O>>(g, stream);
    }
}

cudaError_t launch_typed(const rr__cu_gemm *g, int variant, cudaStream_t stream) {
    if (g->epilogue == RR__CU_SPLIT)
        return g->type == RR__CU_F16    ? launch<Halves<__half>>(g, stream)
               : g->type == RR__CU_BF16 ? launch<Halves<__nv_bfloat16>>(g, stream)
                                        : launch<Halves<__nv_fp8_e4m3>>(g, stream);
    if (g->type == RR__CU_F16)
        return launch_variant<__half, __half>(g, variant, stream);
#ifndef RR_LAB_QUICK
    if (g->type == RR__CU_BF16)
        return launch_variant<__nv_bfloat16, __nv_bfloat16>(g, variant, stream);
    if (g->out_type == RR__CU_BF16)
        return launch_variant<__nv_fp8_e4m3, __nv_bfloat16>(g, variant, stream);
#endif
    if (g->out_type == RR__CU_F16)
        return launch_variant<__nv_fp8_e4m3, __half>(g, variant, stream);
    return launch_variant<__nv_fp8_e4m3, __nv_fp8_e4m3>(g, variant, stream);
}

int64_t tiles_of(const rr__cu_gemm *g, int rows, int cols) {
    return (int64_t)((g->m + rows - 1) / rows) * ((g->n + cols - 1) / cols);
}

/* The largest tile that still occupies an H100's 132 multiprocessors (lab/README.md); SQUARE where a
 * block has several, to take turns. */
int choose(const rr__cu_gemm *g) {
    if (tiles_of(g, 128, 128) >= 66)
        return tiles_of(g, 128, 128) <= 132 ? BLOCK : SQUARE;
    return tiles_of(g, 64, 64) >= 66 ? DEEP64 : DEEP32;
}

} // namespace

extern "C" int rr__cu_gemm_sm90_fits(const rr__cu_gemm *g) {
    if (g->n % 8 || g->m < 1 || g->k < 1 ||
        (g->out_type == RR__CU_E4M3 && g->epilogue != RR__CU_GELU) ||
        (g->out_type == RR__CU_F16 && g->epilogue == RR__CU_GELU && g->out_scale != 1))
        return 0;
    if (g->epilogue == RR__CU_SPLIT)
        return g->type != RR__CU_F32 && g->type != RR__CU_S8;
    if (g->type == RR__CU_E4M3)
        return g->out_type == RR__CU_F16 || g->out_type == RR__CU_BF16 ||
               g->out_type == RR__CU_E4M3;
    return (g->type == RR__CU_F16 || g->type == RR__CU_BF16) && g->out_type == g->type;
}

extern "C" cudaError_t rr__cu_gemm_sm90(const rr__cu_gemm *g, cudaStream_t stream) {
    return launch_typed(g, choose(g), stream);
}

extern "C" int rr__cu_gemm_sm90_splits(const rr__cu_gemm *g) {
    return tiles_of(g, 64, 64) <= RR__CU_SPLIT_TILES && g->k * (g->type == RR__CU_E4M3 ? 1 : 2) > 256;
}
