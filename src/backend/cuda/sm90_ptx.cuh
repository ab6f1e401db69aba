/* sm90_ptx.cuh - Hopper's own instructions, one small function each: mbarrier, bulk tensor copies,
 * warpgroup matrix products, stmatrix. Included by the sm90_*.cu files only; compiled for sm_90a.
 *
 * Shared-memory tiles are rows of 128 bytes in the 128-byte swizzle: within eight rows the 16-byte
 * chunk c of row r lies at chunk c ^ (r & 7). Every tile starts at a multiple of 1,024 bytes. */
#ifndef RR_CUDA_SM90_PTX_CUH
#define RR_CUDA_SM90_PTX_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <stdint.h>

namespace {

__device__ __forceinline__ uint32_t smem_of(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- mbarrier: arrivals and bytes of one phase; parity names the phase waited for ---------- */
__device__ __forceinline__ void bar_init(uint32_t bar, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count));
}
__device__ __forceinline__ void bar_expect(uint32_t bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void bar_arrive(uint32_t bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* Arrive at the barrier of the same address in another block of the cluster. (Asking for release and
 * acquire at cluster scope here puts a device-wide fence and a flush of the L1 into every step, and
 * made the GEMM four times slower; the copy engine orders what it writes by itself.) */
__device__ __forceinline__ void bar_arrive_at(uint32_t bar, uint32_t rank) {
    asm volatile("{\n.reg .b32 far;\n"
                 "mapa.shared::cluster.u32 far, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [far];\n}" ::"r"(bar),
                 "r"(rank)
                 : "memory");
}
__device__ __forceinline__ void bar_wait(uint32_t bar, uint32_t parity) {
    asm volatile("{\n.reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra.uni ready;\n"
                 "bra.uni again;\n"
                 "ready:\n}" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}
__device__ __forceinline__ void fence_bar_init(void) {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
/* Ordinary stores to shared memory become visible to the copy engine and the tensor cores. */
__device__ __forceinline__ void fence_async(void) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/* A barrier of some warps of the block; id 0 is __syncthreads. */
__device__ __forceinline__ void sync_some(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/* Count as arrived at such a barrier without waiting. */
__device__ __forceinline__ void arrive_some(uint32_t id, uint32_t threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void cluster_sync(void) {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
__device__ __forceinline__ uint32_t cluster_rank(void) {
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
/* Until the kernels before this one in the stream are done and their writes visible. */
__device__ __forceinline__ void wait_for_earlier_kernels(void) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
__device__ __forceinline__ void let_later_kernels_start(void) {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/* ---- bulk tensor copies; x counts elements of a row, y rows -------------------------------- */
__device__ __forceinline__ void tma_load(uint32_t dst, const CUtensorMap *map, uint32_t bar, int x,
                                         int y) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(dst),
                 "l"(map), "r"(bar), "r"(x), "r"(y)
                 : "memory");
}
/* The same to every block of the cluster named in mask, each at its own dst and bar. */
__device__ __forceinline__ void tma_load_all(uint32_t dst, const CUtensorMap *map, uint32_t bar,
                                             int x, int y, uint16_t mask) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(dst),
                 "l"(map), "r"(bar), "r"(x), "r"(y), "h"(mask)
                 : "memory");
}
__device__ __forceinline__ void tma_store(const CUtensorMap *map, uint32_t src, int x, int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
        "r"(src), "r"(x), "r"(y)
        : "memory");
}
__device__ __forceinline__ void tma_commit(void) {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/* Until all but the N latest groups of stores have read their shared memory. */
template <int N> __device__ __forceinline__ void tma_stores_read(void) {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* ---- registers ------------------------------------------------------------------------------ */
template <int N> __device__ __forceinline__ void regs_drop(void) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void regs_raise(void) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- 8x8 matrices of 16-bit elements between registers and shared memory -------------------- */
__device__ __forceinline__ void stmatrix4(uint32_t at, const uint32_t (&v)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at),
                 "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
}
__device__ __forceinline__ void ldmatrix4(uint32_t at, uint32_t (&v)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(at)
                 : "memory");
}

/* ---- wgmma ------------------------------------------------------------------------------------ */
__device__ __forceinline__ void wgmma_fence(void) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wgmma_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* A tile in the 128-byte swizzle, groups of eight rows 1,024 bytes apart. Add 2 for 32 bytes on. */
__device__ __forceinline__ uint64_t tile_desc(uint32_t smem) {
    return (uint64_t)((smem & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)64 << 32 |
           (uint64_t)1 << 62;
}

#define RR_R8  "%0,%1,%2,%3,%4,%5,%6,%7"
#define RR_R16 RR_R8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define RR_R32 RR_R16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define RR_R64                                                                                     \
    RR_R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"                      \
           ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define RR_R128                                                                                    \
    RR_R64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"                      \
           ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"                      \
           ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"          \
           ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define RR_O8(i)                                                                                   \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define RR_O16(i)  RR_O8(i), RR_O8(i + 8)
#define RR_O32(i)  RR_O16(i), RR_O16(i + 16)
#define RR_O64(i)  RR_O32(i), RR_O32(i + 32)
#define RR_O128(i) RR_O64(i), RR_O64(i + 64)

/* d[64, N] (+)= a[64, 32 bytes] b[N, 32 bytes]^T; d is overwritten where more is 0. Row
 * lane / 4 (+ 8) of a warp's 16, columns 8 j + 2 (lane % 4) (+ 1): d[4 j + 0, 1] (d[4 j + 2, 3]). */
template <int N, class T> struct wgmma;
#define RR_WGMMA(N, HALF, A, B, M, T, TYPES, KSHAPE, TRANS)                                        \
    template <> struct wgmma<N, T> {                                                               \
        static __device__ __forceinline__ void ss(float (&d)[HALF], uint64_t a, uint64_t b,        \
                                                  int more) {                                      \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" M ", 0;\n"                           \
                         "wgmma.mma_async.sync.aligned.m64n" #N KSHAPE ".f32." TYPES               \
                         " {" RR_R##HALF "}, %" A ", %" B ", p, 1, 1" TRANS ";\n}"                 \
                         : RR_O##HALF(0)                                                           \
                         : "l"(a), "l"(b), "r"(more));                                             \
        }                                                                                          \
    };
#define RR_WGMMA_TYPES(N, HALF, A, B, M)                                                           \
    RR_WGMMA(N, HALF, A, B, M, __half, "f16.f16", "k16", ", 0, 0")                                 \
    RR_WGMMA(N, HALF, A, B, M, __nv_bfloat16, "bf16.bf16", "k16", ", 0, 0")                        \
    RR_WGMMA(N, HALF, A, B, M, __nv_fp8_e4m3, "e4m3.e4m3", "k32", "")
RR_WGMMA_TYPES(256, 128, "128", "129", "130")
RR_WGMMA_TYPES(128, 64, "64", "65", "66")
RR_WGMMA_TYPES(64, 32, "32", "33", "34")
RR_WGMMA_TYPES(32, 16, "16", "17", "18")
RR_WGMMA_TYPES(16, 8, "8", "9", "10")

/* d[64, 64] (+)= a[64, 16] b[16, 64]: a in registers, laid out as two columns of d's halves rounded
 * to 16 bits; b a tile of 16 rows (k) of 128 bytes. */
template <class T> struct wgmma_rows;
#define RR_WGMMA_ROWS(T, TYPES)                                                                    \
    template <> struct wgmma_rows<T> {                                                             \
        static __device__ __forceinline__ void rs(float (&d)[32], const uint32_t (&a)[4],          \
                                                  uint64_t b, int more) {                          \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                              \
                         "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " {" RR_R32           \
                         "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"                            \
                         : RR_O32(0)                                                               \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more));         \
        }                                                                                          \
    };
RR_WGMMA_ROWS(__half, "f16.f16")
RR_WGMMA_ROWS(__nv_bfloat16, "bf16.bf16")

/* d is computed here, not behind a later wait, where the compiler would put it. */
__device__ __forceinline__ void wgmma_keep(float (&d)[32]) {
    asm volatile("" : RR_O32(0)::"memory");
}

/* Two numbers to neighbours in memory, lower address first; saturated to the finite range. */
__device__ __forceinline__ uint32_t pack(float lo, float hi, __half) {
    uint32_t r;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
__device__ __forceinline__ uint32_t pack(float lo, float hi, __nv_bfloat16) {
    uint32_t r;
    asm("cvt.rn.satfinite.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
__device__ __forceinline__ uint32_t pack(float lo, float hi, __nv_fp8_e4m3) {
    uint16_t r;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
    return r;
}

__device__ __forceinline__ uint32_t pack(__half2 v) {
    uint16_t r;
    asm("cvt.rn.satfinite.e4m3x2.f16x2 %0, %1;" : "=h"(r) : "r"(*(uint32_t *)&v));
    return r;
}

} // namespace

#endif
