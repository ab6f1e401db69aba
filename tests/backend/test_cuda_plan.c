/* test_cuda_plan.c - what the CUDA backend plans before it asks the device for anything: memory,
 * and what of a batch goes where. Needs the toolkit's headers, no card. */
#include <criterion/criterion.h>
#include <stdio.h>

#ifndef RR_WITH_CUDA
Test(cuda_plan, needs_the_toolkit) {
    fprintf(stderr, "skip: cuda_plan: built without the CUDA toolkit\n");
    cr_skip_test("no toolkit");
}
#else
#include "../../src/backend/cuda/plan.c" /* a module's inside: it exports one symbol, the table */
#include "../../src/backend/cuda/stage.c"

/* Weights of bge-reranker-v2-m3's shape as far as plans look at them. */
static rr__cu_weights weights_of(const rr__model *m, rr__cu_type type, int32_t tokens) {
    rr__cu_weights w = {.m = m, .act = RR__CU_F16, .type = type, .tile_rows = 128};

    w.opts.max_batch_tokens = tokens;
    w.opts.max_batch_seqs = 1024;
    w.notes = type == RR__CU_S8;
    w.mid_size = type == RR__CU_E4M3 ? 1 : type == RR__CU_S8 ? 3 : 2;
    return w;
}

static const rr__model large = {.d_model = 1024, .d_ff = 4096, .max_length = 8192, .pad_id = -1};

Test(cuda_plan, an_instance_takes_less_than_150_mb_at_16384_tokens) {
    static const rr__cu_type types[] = {RR__CU_F16, RR__CU_S8, RR__CU_E4M3};
    static const char *const names[] = {"fp16", "int8", "fp8"};

    for (int i = 0; i < 3; i++) {
        rr__cu_weights w = weights_of(&large, types[i], 16384);

        fprintf(stderr, "%s: %.1f MB\n", names[i], rr__cu_instance_bytes(&w) / 1e6);
        cr_expect_lt(rr__cu_instance_bytes(&w), 150e6);
    }
}

/* What is planned lies side by side, all of it within the sum. */
Test(cuda_plan, nothing_overlaps) {
    static const rr__cu_type types[] = {RR__CU_F16, RR__CU_S8, RR__CU_E4M3};

    for (int i = 0; i < 3; i++)
        for (int32_t tokens = 1; tokens <= 65536; tokens = tokens * 3 + 1) {
            rr__cu_weights  w = weights_of(&large, types[i], tokens);
            rr__cu_instance r = {0};
            const size_t    bytes = rr__cu_instance_bytes(&w), n = (size_t)tokens, d = 1024;
            const size_t    s = tokens < 1024 ? n : 1024, wide = (size_t)rr__cu_wide_rows(&w);
            char *const     base = (char *)4096;

            cr_assert_eq(rr__cu_plan(&r, &w, base), bytes);
            cr_expect_eq((char *)r.x, base);
            if (r.x8) {
                cr_expect_geq((char *)r.x8 - (char *)r.x, (long)((n + 1) * d * 2));
                cr_expect_geq((char *)r.x_scale - (char *)r.x8, (long)((n + 1) * d));
            }
            cr_expect_geq((char *)r.first - (char *)r.wide, (long)(wide * 3 * d * 2));
            cr_expect_geq((char *)r.first - (char *)r.wide,
                          (long)((size_t)r.chunk * 4096 * w.mid_size));
            cr_expect_geq((char *)r.first - (char *)r.head, (long)(s * d * 4));
            cr_expect_geq(r.chunk, 128);
            cr_expect_leq((char *)r.slot[1].stage_dev - base, (long)bytes);
        }
}

/* Every batch of every mixture of lengths is cut into parts that fit, or not at all. */
Test(cuda_plan, parts_fit_and_tile_every_sequence) {
    static const int32_t longest[] = {1, 7, 100, 512, 3000, 8192};
    enum { TOKENS = 16384 };
    int32_t *tok = calloc(TOKENS, sizeof *tok), *cu = calloc(TOKENS + 1, sizeof *cu);
    int64_t *order = calloc(TOKENS, sizeof *order);
    unsigned seed = 1;
    int      cuts = 0;

    for (int round = 0; round < 300; round++) {
        rr__cu_weights w = weights_of(&large, RR__CU_F16, TOKENS);
        rr__batch      b = {.tok = tok, .cu = cu, .max_len = 8192};
        const int32_t  most = longest[round % 6], wide = rr__cu_wide_rows(&w);
        const int32_t  want = round % 2 ? TOKENS : 1 + (int32_t)(rand_r(&seed) % TOKENS);
        rr__cu_shape   shape;
        rr__cu_staging g;
        char          *room;
        int32_t       *seen, n = 0;

        while (b.n_tok < want) {
            int32_t len = 1 + (int32_t)(rand_r(&seed) % (unsigned)most);

            len = len < want - b.n_tok ? len : want - b.n_tok;
            b.n_tok += len;
            cu[++b.n_seq] = b.n_tok;
        }
        shape = rr__cu_shape_of(&w, &b);
        cr_assert(shape.n == b.n_tok && shape.s == b.n_seq);
        cr_assert(shape.n1 <= wide && shape.n - shape.n1 <= wide, "%d and %d tokens of %d",
                  (int)shape.n1, (int)(shape.n - shape.n1), (int)wide);
        cr_assert_eq(shape.s1 == shape.s, b.n_tok <= wide);
        cuts += shape.s1 < shape.s;
        room = calloc(1, rr__cu_staging_at(NULL, &shape).bytes);
        rr__cu_stage(&w, &b, &shape, room, order);
        g = rr__cu_staging_at(room, &shape);
        seen = calloc((size_t)b.n_tok, sizeof *seen);
        for (int32_t i = 0; i < shape.n_tile; i++) {
            const int      second = i >= shape.n_tile1;
            const int32_t *part = g.cu + (second ? shape.s1 + 1 : 0);
            const int32_t  s = g.tile[i].seq, first = second ? shape.n1 : 0;

            cr_assert(s >= 0 && s < (second ? shape.s - shape.s1 : shape.s1));
            cr_assert_eq(part[s] + first, cu[s + (second ? shape.s1 : 0)]);
            for (int32_t r = g.tile[i].row; r < g.tile[i].row + 128 && part[s] + r < part[s + 1];
                 r++)
                seen[first + part[s] + r]++;
        }
        for (int32_t t = 0; t < b.n_tok; t++)
            n += seen[t] == 1;
        cr_assert_eq(n, b.n_tok);
        free(seen);
        free(room);
    }
    cr_expect_gt(cuts, 100);
    free(tok);
    free(cu);
    free(order);
}

/* The bucket of a graph: what is spare belongs to nobody. */
Test(cuda_plan, padding_is_empty) {
    static const int32_t tok[] = {5, 6, 7, 8, 9}, cu[] = {0, 3, 5};
    rr__cu_weights       w = weights_of(&large, RR__CU_F16, 16384);
    rr__batch            b = {2, 5, 3, tok, cu, NULL};
    rr__cu_shape         shape = rr__cu_whole(&w, 32, 16);
    char                *room = malloc(rr__cu_staging_at(NULL, &shape).bytes);
    rr__cu_staging       g = rr__cu_staging_at(room, &shape);
    int64_t              order[2];

    memset(room, 0x77, g.bytes);
    rr__cu_stage(&w, &b, &shape, room, order);
    for (int i = 0; i < 32; i++)
        cr_expect(i < 5 ? g.tok[i] == tok[i] : g.tok[i] == 0 && g.pos[i] == 0);
    for (int i = 0; i <= 16; i++)
        cr_expect_eq(g.cu[i], i < 2 ? cu[i] : 5);
    cr_expect(g.tile[0].seq == 0 && g.tile[0].row == 0 && g.tile[1].seq == 1);
    for (int i = 2; i < shape.n_tile; i++)
        cr_expect_eq(g.tile[i].seq, -1);
    free(room);
}
#endif
