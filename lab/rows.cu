/* rows.cu - what goes a row at a time: LayerNorm, with and without a quantised copy, embedding +
 * LayerNorm, quantisation alone. Rows of 1,024 values.
 *
 *   rows check   each against double precision
 *   rows bench   microseconds, GB/s of what must be read and written, and the share of what a plain
 *                copy of as many bytes reaches in the same race; buffers are rotated, so that
 *                little comes from the L2
 * Build: make lab. */
#include "../src/backend/cuda/kernels.h"
#include "lab.cuh"

enum { D = 1024, VOCAB = 50000, PLACES = 8194 };

enum Op { PLAIN, TO_E4M3, TO_S8, EMBED, QUANTISE };
static const char *const NAME[] = {"layernorm", "layernorm + e4m3", "layernorm + s8",
                                   "embed + layernorm", "quantise to e4m3"};

/* Everything an operation reads and writes, for `rows` rows. */
struct Data {
    __half      *in, *out, *word, *type, *place;
    float       *gamma, *beta, *scale;
    uint8_t     *q;
    rr__cu_note *note;
    int32_t     *tok, *pos;
};

/* The tables, which all copies share; no rows. */
static Data tables(void) {
    static Data t;
    if (!t.word) {
        t.word = lab_random<__half>((size_t)VOCAB * D, 3, 1.0f);
        t.type = lab_random<__half>(2 * D, 4, 0.1f);
        t.place = lab_random<__half>((size_t)PLACES * D, 5, 0.3f);
        t.gamma = lab_random<float>(D, 6, 0.1f, 1.0f);
        t.beta = lab_random<float>(D, 7, 0.1f);
    }
    return t;
}
static Data data_of(int rows, uint32_t seed) {
    Data                 d = tables();
    std::vector<int32_t> tok(rows), pos(rows);
    for (int i = 0; i < rows; i++) {
        tok[i] = (int32_t)(lab_uniform(i, seed + 1) * VOCAB);
        pos[i] = i % 500 + 2;
    }
    d.in = lab_random<__half>((size_t)rows * D, seed, 2.0f, 0.5f);
    d.out = lab_array<__half>((size_t)rows * D);
    d.q = lab_array<uint8_t>((size_t)rows * D);
    d.scale = lab_array<float>(rows);
    d.note = lab_array<rr__cu_note>(rows);
    d.tok = lab_array<int32_t>(rows);
    d.pos = lab_array<int32_t>(rows);
    CHECK(cudaMemcpy(d.tok, tok.data(), rows * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(d.pos, pos.data(), rows * 4, cudaMemcpyHostToDevice));
    return d;
}
/* All but the tables. */
static void free_data(Data *d) {
    for (void *p : {(void *)d->in, (void *)d->out, (void *)d->q, (void *)d->scale, (void *)d->note,
                    (void *)d->tok, (void *)d->pos})
        CHECK(cudaFree(p));
}
static cudaError_t launch(Op op, const Data &d, int rows, cudaStream_t s) {
    rr__cu_norm  p = {};
    rr__cu_embed e = {d.tok, d.pos, d.word, d.type, d.place};
    p.type = RR__CU_F16, p.rows = rows, p.d = D, p.eps = 1e-5f, p.in = d.in, p.out = d.out;
    p.gamma = d.gamma, p.beta = d.beta;
    if (op == TO_E4M3 || op == TO_S8 || op == QUANTISE) {
        p.to.type = op == TO_S8 ? RR__CU_S8 : RR__CU_E4M3;
        p.to.q = d.q, p.to.row_scale = d.scale, p.to.note = op == TO_S8 ? d.note : NULL;
    }
    if (op == QUANTISE)
        return rr__cu_quantise_rows(RR__CU_F16, d.in, D, rows, D, &p.to, s);
    return op == EMBED ? rr__cu_embed_layernorm(&p, &e, s) : rr__cu_layernorm(&p, s);
}

/* Bytes a row must read and write. */
static double bytes_of(Op op) {
    const double x = 2.0 * D, q = 1.0 * D + 4;
    switch (op) {
    case TO_E4M3:
        return 2 * x + q;
    case TO_S8:
        return 2 * x + q + 8; /* a note that ends at once */
    case EMBED:
        return 3 * x; /* word and position; the type's row stays in the L1 */
    case QUANTISE:
        return x + q;
    default:
        return 2 * x;
    }
}

template <class T> static std::vector<T> fetch(const T *p, size_t n) {
    std::vector<T> v(n);
    CHECK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
}

static int check(Op op, int rows) {
    Data d = data_of(rows, 20);
    CHECK(launch(op, d, rows, 0));
    CHECK(cudaDeviceSynchronize());
    const std::vector<__half>  in = fetch(d.in, (size_t)rows * D), out = fetch(d.out, in.size());
    const std::vector<__half>  word = fetch(d.word, (size_t)VOCAB * D), type = fetch(d.type, D);
    const std::vector<__half>  place = fetch(d.place, (size_t)PLACES * D);
    const std::vector<float>   gamma = fetch(d.gamma, D), beta = fetch(d.beta, D);
    const std::vector<float>   scale = fetch(d.scale, rows);
    const std::vector<uint8_t> q = fetch(d.q, in.size());
    const std::vector<rr__cu_note> note = fetch(d.note, rows);
    const std::vector<int32_t>     tok = fetch(d.tok, rows), pos = fetch(d.pos, rows);
    double                         e2 = 0, r2 = 0, q2 = 0;
    for (int i = 0; i < rows; i++) {
        std::vector<double> x(D), eight(D);
        double              mean = 0, var = 0;
        for (int j = 0; j < D; j++) {
            x[j] = (float)in[(size_t)i * D + j];
            if (op == EMBED)
                x[j] = (float)word[(size_t)tok[i] * D + j] + (double)(float)type[j] +
                       (float)place[(size_t)pos[i] * D + j];
            mean += x[j] / D;
        }
        for (int j = 0; j < D; j++)
            var += (x[j] - mean) * (x[j] - mean) / D;
        for (int j = 0; j < D && op != QUANTISE; j++)
            x[j] = (x[j] - mean) / sqrt(var + 1e-5) * gamma[j] + beta[j];
        for (int j = 0; j < D; j++) {
            const uint8_t b = q[(size_t)i * D + j];
            __nv_fp8_e4m3 f8;
            memcpy(&f8, &b, 1);
            eight[j] = scale[i] * (op == TO_S8 ? (double)(int8_t)b : (double)(float)f8);
        }
        for (int k = 0; k < RR__CU_OUTLIERS && op == TO_S8 && note[i].j[k] >= 0; k++)
            eight[note[i].j[k]] += note[i].x[k];
        for (int j = 0; j < D; j++) {
            const double y = op == QUANTISE ? x[j] : (double)(float)out[(size_t)i * D + j];
            e2 += (y - x[j]) * (y - x[j]), r2 += x[j] * x[j];
            if (op != PLAIN && op != EMBED)
                q2 += (eight[j] - x[j]) * (eight[j] - x[j]);
        }
    }
    const double e = sqrt(e2 / r2), of_q = sqrt(q2 / r2);
    const int    ok = e < 4e-4 && of_q < (op == TO_S8 ? 1.2e-2 : 4e-2);
    printf("%-18s %5d rows: error %.1e, of the 8 bits %.1e %s\n", NAME[op], rows, e, of_q,
           ok ? "ok" : "BAD");
    free_data(&d);
    return !ok;
}

static void copy(const Data &d, double bytes, cudaStream_t s) {
    CHECK(cudaMemcpyAsync(d.out, d.in, (size_t)bytes, cudaMemcpyDeviceToDevice, s));
}

static void bench(int rows) {
    const int         copies = std::max(2, (int)(300e6 / (4.0 * D * rows)));
    std::vector<Data> d;
    for (int i = 0; i < copies; i++)
        d.push_back(data_of(rows, 30 + i));
    for (int op = 0; op <= QUANTISE; op++) {
        const double          bytes = bytes_of((Op)op) * rows;
        const double          copied = std::min(bytes, 4.0 * D * rows); /* all there is */
        std::vector<lab_call> calls = {
            [&](int i, cudaStream_t s) { CHECK(launch((Op)op, d[i % copies], rows, s)); },
            [&](int i, cudaStream_t s) { copy(d[i % copies], copied / 2, s); }};
        const std::vector<double> us = lab_race(calls, std::max(2.0, bytes / 3e6));
        const double              rate = bytes / us[0] / 1e3, of_copy = copied / us[1] / 1e3;
        printf("| %5d | %-18s | %7.2f | %5.0f | %5.0f | %3.0f %% |\n", rows, NAME[op], us[0], rate,
               of_copy, 100 * rate / of_copy);
    }
    for (Data &x : d)
        free_data(&x);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 2 && !strcmp(argv[1], "check")) {
        int bad = 0;
        for (int op = 0; op <= QUANTISE; op++)
            for (int rows : {1, 130, 1025}) /* up to 1,024 a row has four warps, then one */
                bad += check((Op)op, rows);
        return bad != 0;
    }
    if (argc == 2 && !strcmp(argv[1], "bench")) {
        printf("| rows | operation | us | GB/s | a copy's GB/s | share |\n"
               "|---|---|---|---|---|---|\n");
        for (int rows : {128, 512, 4096, 17996, 51200})
            bench(rows);
        return 0;
    }
    fprintf(stderr, "rows check | bench\n");
    return 2;
}
