/* sm90_map.cuh - descriptions of matrices for Hopper's copy engine. */
#ifndef RR_CUDA_SM90_MAP_CUH
#define RR_CUDA_SM90_MAP_CUH

#include <atomic>
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

/* A number a kernel needs once on each device, 0 until it is known: a kernel's attributes are set
 * device by device. Threads that find 0 at once set the same value. */
struct rr__sm90_once {
    std::atomic<int> value[64];
    std::atomic<int> &here() {
        int device = 0;
        cudaGetDevice(&device);
        return value[device & 63];
    }
};

/* Describe a [rows, cols] matrix, ld elements a row, read or written in boxes of [box_rows,
 * 128 bytes] in the 128-byte swizzle; what lies outside reads as 0 and is not written. */
static cudaError_t rr__sm90_map(CUtensorMap *map, CUtensorMapDataType type, int elem, const void *p,
                                int64_t rows, int64_t cols, int64_t ld, int box_rows) {
    typedef CUresult (*encode_fn)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                  const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                  const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                  CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    static std::atomic<encode_fn> known;
    encode_fn                     encode = known.load();
    if (!encode) {
        void                           *fn = NULL;
        cudaDriverEntryPointQueryResult found;
        cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &fn, 12000,
                                                         cudaEnableDefault, &found);
        if (e != cudaSuccess)
            return e;
        if (found != cudaDriverEntryPointSuccess)
            return cudaErrorNotSupported;
        known = encode = (encode_fn)fn;
    }
    cuuint64_t size[2] = {(cuuint64_t)cols, (cuuint64_t)rows};
    cuuint64_t stride[1] = {(cuuint64_t)ld * (cuuint64_t)elem};
    cuuint32_t box[2] = {(cuuint32_t)(128 / elem), (cuuint32_t)box_rows}, step[2] = {1, 1};
    CUresult   r = encode(map, type, 2, (void *)p, size, stride, box, step,
                          CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                          CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

#endif
