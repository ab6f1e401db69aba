/* attention.cu - softmax(q k^T / 8) v over ragged sequences, 16 heads of 64: wgmma beside mma.sync.
 *
 *   attention check   each against double precision; a sequence's bits alone and among others,
 *                     whatever (also NaN) lies behind it; what --fast makes of few rows
 *   attention bench   microseconds and TFLOP/s (4 d sum of squared lengths) of each
 *   attention once CASE   each version twice, for a profiler
 * Build: make lab. */
#include "../src/backend/cuda/kernels.h"
#include "lab.cuh"

enum { HEADS = 16, D = 1024 };

/* The 100 lengths of the ragged benchmark: lognormal around 160, 24 to 512, 17,996 tokens. */
static const int RAGGED[] = {
    230, 158, 334, 294, 130, 332, 96,  140, 111, 93,  350, 191, 89,  352, 348, 448, 97,
    162, 84,  269, 75,  304, 127, 166, 165, 158, 140, 181, 292, 259, 215, 185, 94,  309,
    178, 175, 161, 127, 177, 198, 71,  32,  194, 227, 54,  134, 76,  100, 238, 112, 71,
    144, 162, 289, 43,  48,  239, 301, 71,  123, 97,  83,  39,  245, 174, 245, 132, 63,
    146, 47,  105, 39,  101, 129, 483, 315, 512, 53,  59,  95,  273, 311, 278, 126, 415,
    69,  104, 255, 175, 88,  402, 358, 54,  194, 85,  381, 99,  56,  290, 98,
};

struct Batch {
    std::vector<int>         len;
    std::vector<int32_t>     cu;
    std::vector<rr__cu_tile> tile;
    int                      n;
    int32_t                 *dev_cu;
    rr__cu_tile             *dev_tile;
};

static void plan(Batch *b, int rows) {
    std::vector<int> order;
    b->cu.assign(1, 0);
    b->tile.clear();
    for (size_t i = 0; i < b->len.size(); i++) {
        order.push_back((int)i);
        b->cu.push_back(b->cu.back() + b->len[i]);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int x, int y) { return b->len[x] > b->len[y]; });
    for (int s : order)
        for (int r = 0; r < b->len[s]; r += rows)
            b->tile.push_back({s, r});
    b->n = b->cu.back();
    b->dev_cu = lab_array<int32_t>(b->cu.size());
    b->dev_tile = lab_array<rr__cu_tile>(b->tile.size());
    CHECK(cudaMemcpy(b->dev_cu, b->cu.data(), b->cu.size() * 4, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(b->dev_tile, b->tile.data(), b->tile.size() * sizeof(rr__cu_tile),
                     cudaMemcpyHostToDevice));
}

/* wgmma's fast differs in batches of few rows only: there the keys are split. */
enum { WGMMA, MMA, FAST, N_VERSION };
static const char *const VERSION[] = {"wgmma", "mma", "fast"};
static const int         ROWS[] = {RR__CU_TILE_SM90, RR__CU_TILE_MMA, RR__CU_TILE_SM90};

static cudaError_t launch(int version, const rr__cu_attention *a, cudaStream_t s) {
    return version == MMA ? rr__cu_attention_mma(a, s) : rr__cu_attention_sm90(a, s);
}
static rr__cu_attention args_of(int version, const Batch &b, rr__cu_type type, rr__cu_type out,
                                const void *qkv, void *ctx) {
    rr__cu_attention a = {};
    a.type = type, a.out_type = out, a.n_head = HEADS, a.head_dim = 64;
    a.n_tile = (int32_t)b.tile.size(), a.n_row = b.n + 64, a.qkv = qkv, a.cu = b.dev_cu;
    a.tile = b.dev_tile, a.ctx = ctx, a.ld_ctx = D, a.out_scale = out == RR__CU_E4M3 ? 64.0f : 1.0f;
    a.fast = version == FAST;
    return a;
}

template <class T> static int check(int version, rr__cu_type type, rr__cu_type out) {
    Batch b;
    b.len = {1, 512, 63, 64, 65, 200, 128, 129, 24, 300, 1025};
    plan(&b, ROWS[version]);
    const size_t     bytes = out == RR__CU_E4M3 ? 1 : 2, size = (size_t)(b.n + 1) * D * bytes;
    T               *qkv = lab_random<T>((size_t)(b.n + 64) * 3 * D, 11, 1.5f);
    uint8_t         *ctx = lab_array<uint8_t>(size);
    rr__cu_attention a = args_of(version, b, type, out, qkv, ctx);
    /* what lies behind the last sequence is NaN */
    CHECK(cudaMemset(qkv + (size_t)b.n * 3 * D, 0xff, (size_t)64 * 3 * D * sizeof(T)));
    CHECK(launch(version, &a, 0));
    CHECK(cudaDeviceSynchronize());
    std::vector<uint8_t> got(size);
    std::vector<T>       h((size_t)b.n * 3 * D);
    CHECK(cudaMemcpy(got.data(), ctx, size, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(h.data(), qkv, h.size() * sizeof(T), cudaMemcpyDeviceToHost));
    auto value = [bytes](const std::vector<uint8_t> &x, size_t i) -> double {
        return bytes == 1 ? (float)((const __nv_fp8_e4m3 *)x.data())[i] / 64
                          : (float)((const T *)x.data())[i];
    };
    double e2 = 0, r2 = 0;
    for (size_t s = 0; s < b.len.size(); s++)
        for (int head = 0; head < HEADS; head += 5)
            for (int i = 0; i<b.len[s]; i += b.len[s]> 100 ? 17 : 1) {
                std::vector<double> w(b.len[s]), o(64, 0.0);
                const T            *base = h.data() + (size_t)b.cu[s] * 3 * D + head * 64;
                double              top = -1e300, sum = 0;
                for (int j = 0; j < b.len[s]; j++) {
                    double x = 0;
                    for (int c = 0; c < 64; c++)
                        x += (double)(float)base[(size_t)i * 3 * D + c] *
                             (double)(float)base[(size_t)j * 3 * D + D + c];
                    w[j] = x / 8, top = std::max(top, w[j]);
                }
                for (int j = 0; j < b.len[s]; j++)
                    sum += w[j] = exp(w[j] - top);
                for (int j = 0; j < b.len[s]; j++)
                    for (int c = 0; c < 64; c++)
                        o[c] += w[j] / sum * (double)(float)base[(size_t)j * 3 * D + 2 * D + c];
                for (int c = 0; c < 64; c++) {
                    double y = value(got, (size_t)(b.cu[s] + i) * D + head * 64 + c);
                    e2 += (y - o[c]) * (y - o[c]), r2 += o[c] * o[c];
                }
            }
    int same = 1;
    for (size_t i = (size_t)b.n * D * bytes; i < size; i++)
        same &= got[i] == 0xff;
    /* every sequence alone: the same bits, in fast the same but for rounding */
    double d2 = 0, g2 = 0;
    for (size_t s = 0; s < b.len.size(); s++) {
        Batch one;
        one.len = {b.len[s]};
        plan(&one, ROWS[version]);
        rr__cu_attention x = args_of(version, one, type, out, qkv + (size_t)b.cu[s] * 3 * D, ctx);
        std::vector<uint8_t> alone((size_t)one.n * D * bytes);
        x.n_row = one.n; /* zeros behind it now */
        CHECK(launch(version, &x, 0));
        CHECK(cudaMemcpy(alone.data(), ctx, alone.size(), cudaMemcpyDeviceToHost));
        const size_t first = (size_t)b.cu[s] * D;
        if (version != FAST && memcmp(alone.data(), got.data() + first * bytes, alone.size()))
            same = 0;
        for (size_t i = 0; i < alone.size() / bytes; i++) {
            double y = value(got, first + i), d = value(alone, i) - y;
            d2 += d * d, g2 += y * y;
        }
    }
    double e = sqrt(e2 / r2), limit = bytes == 1 ? 4e-2 : type == RR__CU_F16 ? 1e-3 : 6e-3;
    double d = sqrt(d2 / g2);
    int    ok = e < limit && same && d < limit;
    printf("%s type %d>%d error %.1e, alone %.1e from company, bits %s %s\n", VERSION[version],
           type, out, e, d, same ? "as promised" : "WRONG", ok ? "ok" : "BAD");
    CHECK(cudaFree(qkv));
    CHECK(cudaFree(ctx));
    return !ok;
}

static void bench(const char *name, std::vector<int> len) {
    double sum = 0;
    for (int l : len)
        sum += 4.0 * D * l * l;
    Batch                 b[N_VERSION];
    rr__cu_attention      a[N_VERSION];
    std::vector<lab_call> calls;
    __half               *qkv = NULL, *ctx = NULL;
    for (int version = 0; version < N_VERSION; version++) {
        b[version].len = len;
        plan(&b[version], ROWS[version]);
        if (!qkv)
            qkv = lab_random<__half>((size_t)(b[0].n + 64) * 3 * D, 12, 1.0f);
        if (!ctx)
            ctx = lab_array<__half>((size_t)b[0].n * D);
        a[version] = args_of(version, b[version], RR__CU_F16, RR__CU_F16, qkv, ctx);
        calls.push_back(
            [&a, version](int, cudaStream_t s) { CHECK(launch(version, &a[version], s)); });
    }
    std::vector<double> us = lab_race(calls, std::max(4.0, sum / 300e6));
    printf("%-10s", name);
    for (int version = 0; version < N_VERSION; version++)
        printf("  %s %8.2f us %4.0f TFLOP/s", VERSION[version], us[version],
               sum / us[version] / 1e6);
    printf("\n");
    CHECK(cudaFree(qkv));
    CHECK(cudaFree(ctx));
}

static const struct {
    const char      *name;
    std::vector<int> len;
} CASES[] = {{"1x128", {128}},
             {"1x512", {512}},
             {"8x512", std::vector<int>(8, 512)},
             {"ragged100", std::vector<int>(RAGGED, RAGGED + 100)},
             {"100x128", std::vector<int>(100, 128)},
             {"100x512", std::vector<int>(100, 512)},
             {"4x8192", std::vector<int>(4, 8192)}};

/* Each version twice, plainly, for a profiler. */
static void once(std::vector<int> len) {
    for (int version = 0; version < N_VERSION; version++) {
        Batch b;
        b.len = len;
        plan(&b, ROWS[version]);
        __half          *qkv = lab_random<__half>((size_t)(b.n + 64) * 3 * D, 12, 1.0f);
        __half          *ctx = lab_array<__half>((size_t)b.n * D);
        rr__cu_attention a = args_of(version, b, RR__CU_F16, RR__CU_F16, qkv, ctx);
        for (int i = 0; i < 2; i++)
            CHECK(launch(version, &a, 0));
        CHECK(cudaDeviceSynchronize());
        CHECK(cudaFree(qkv));
        CHECK(cudaFree(ctx));
    }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 2 && !strcmp(argv[1], "check")) {
        int bad = check<__half>(MMA, RR__CU_F16, RR__CU_F16);
        for (int version : {WGMMA, FAST}) {
            bad += check<__half>(version, RR__CU_F16, RR__CU_F16);
            bad += check<__nv_bfloat16>(version, RR__CU_BF16, RR__CU_BF16);
            bad += check<__half>(version, RR__CU_F16, RR__CU_E4M3);
        }
        return bad;
    }
    if (argc == 2 && !strcmp(argv[1], "bench")) {
        for (auto &c : CASES)
            bench(c.name, c.len);
        return 0;
    }
    for (auto &c : CASES)
        if (argc == 3 && !strcmp(argv[1], "once") && !strcmp(argv[2], c.name)) {
            once(c.len);
            return 0;
        }
    fprintf(stderr, "attention check | bench | once CASE\n");
    return 2;
}
