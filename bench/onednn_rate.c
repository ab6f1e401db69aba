/* onednn_rate.c - what oneDNN's plain matmul reaches on this machine; bench/cpu.py is its caller.
 *
 *     onednn_rate N K          OMP_NUM_THREADS says how many threads
 *
 * [4096, K] times [K, N] with the weights in the layout oneDNN likes best, for the longest of a second:
 * one line "precision operations-a-second" each for fp32, bf16 and int8 (u8 x s8 into fp32). */
#define _DEFAULT_SOURCE
#include "base/clock.h"

#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>

enum { M = 4096 };

static void check(dnnl_status_t s, const char *what) {
    if (s == dnnl_success)
        return;
    fprintf(stderr, "onednn_rate: %s: status %d\n", what, (int)s);
    exit(1);
}

static dnnl_memory_t memory(const_dnnl_memory_desc_t d, dnnl_engine_t engine) {
    dnnl_memory_t m;
    void         *p;

    check(dnnl_memory_create(&m, d, engine, DNNL_MEMORY_ALLOCATE), "memory");
    check(dnnl_memory_get_data_handle(m, &p), "handle");
    for (size_t i = 0; i < dnnl_memory_desc_get_size(d); i++)
        ((unsigned char *)p)[i] =
            (unsigned char)(60 + i * 7 % 4); /* about 0.01: no denormals, which take long */
    return m;
}

/* Operations a second, or 0 where the machine has no such product. */
static double rate(dnnl_engine_t engine, dnnl_stream_t stream, dnnl_data_type_t a,
                   dnnl_data_type_t w, dnnl_data_type_t out, int64_t n, int64_t k) {
    const dnnl_dims_t        da = {M, k}, dw = {k, n}, dd = {M, n};
    dnnl_memory_desc_t       ma, mw, md;
    dnnl_primitive_desc_t    pd;
    dnnl_primitive_t         p;
    dnnl_exec_arg_t          args[3];
    const_dnnl_memory_desc_t best;
    int64_t                  start, runs = 0, us;

    check(dnnl_memory_desc_create_with_tag(&ma, 2, da, a, dnnl_ab), "a");
    check(dnnl_memory_desc_create_with_tag(&mw, 2, dw, w, dnnl_format_tag_any), "w");
    check(dnnl_memory_desc_create_with_tag(&md, 2, dd, out, dnnl_ab), "d");
    if (dnnl_matmul_primitive_desc_create(&pd, engine, ma, mw, NULL, md, NULL) != dnnl_success)
        return 0;
    best = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    check(dnnl_primitive_create(&p, pd), "primitive");
    args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, memory(ma, engine)};
    args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, memory(best, engine)};
    args[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, memory(md, engine)};
    check(dnnl_primitive_execute(p, stream, 3, args), "execute");
    check(dnnl_stream_wait(stream), "wait");
    start = rr_now_us();
    do {
        check(dnnl_primitive_execute(p, stream, 3, args), "execute");
        check(dnnl_stream_wait(stream), "wait");
        runs++;
        us = rr_now_us() - start;
    } while (us < 1000000);
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(args[i].memory);
    dnnl_primitive_destroy(p);
    dnnl_primitive_desc_destroy(pd);
    dnnl_memory_desc_destroy(ma);
    dnnl_memory_desc_destroy(mw);
    dnnl_memory_desc_destroy(md);
    return 2.0 * M * (double)n * (double)k * (double)runs / ((double)us * 1e-6);
}

int main(int argc, char **argv) {
    dnnl_engine_t engine;
    dnnl_stream_t stream;

    if (argc != 3) {
        fprintf(stderr, "usage: onednn_rate N K\n");
        return 2;
    }
    const int64_t n = strtol(argv[1], NULL, 10), k = strtol(argv[2], NULL, 10);

    if (n < 1 || k < 1)
        return 2;
    check(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine");
    check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    printf("fp32 %.0f\n", rate(engine, stream, dnnl_f32, dnnl_f32, dnnl_f32, n, k));
    printf("bf16 %.0f\n", rate(engine, stream, dnnl_bf16, dnnl_bf16, dnnl_bf16, n, k));
    printf("int8 %.0f\n", rate(engine, stream, dnnl_u8, dnnl_s8, dnnl_f32, n, k));
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return 0;
}
