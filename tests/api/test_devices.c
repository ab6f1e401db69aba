/* test_devices.c - devices = "all" over a machine whose second card is broken: a backend of three
 * devices stands in the place of src/backend/list.c. */
#include "backend/backend.h"
#include "rerank.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <string.h>

enum { DEVICES = 3 };

static atomic_int broken; /* a bit a device */
static int        ordinal[DEVICES];

static rr_status probe(rr_error *err) {
    return RR_OK;
}

static rr_status load(const rr__model *m, const rr__backend_opts *o, void **weights,
                      rr_error *err) {
    if (o->device >= DEVICES)
        return rr__fail(err, RR_E_ARG, "there is no device %d", (int)o->device);
    if (atomic_load(&broken) >> o->device & 1)
        return rr__fail(err, RR_E_DEVICE, "card %d fell off the bus", (int)o->device);
    ordinal[o->device] = o->device;
    *weights = &ordinal[o->device];
    return RR_OK;
}

static rr_status open(void *weights, void **instance, rr_error *err) {
    *instance = weights;
    return RR_OK;
}

static rr_status score(void *instance, const rr__batch *b, float *logits, rr_error *err) {
    for (int32_t i = 0; i < b->n_seq; i++)
        logits[i] = (float)(b->cu[i + 1] - b->cu[i]);
    return RR_OK;
}

static void describe(const void *weights, rr__backend_info *out) {
    *out = (rr__backend_info){.precision = RR__FP32, .device = "card"};
}

static void drop(void *p) {
}

static const rr__backend cards = {.abi = RR__BACKEND_ABI,
                                  .name = "cards",
                                  .precisions = 1u << RR__FP32,
                                  .probe = probe,
                                  .load = load,
                                  .open = open,
                                  .score = score,
                                  .describe = describe,
                                  .close = drop,
                                  .unload = drop};

const rr__backend *rr__backend_at(int i) {
    return i == 0 ? &cards : NULL;
}

rr_status rr__backend_find(const char *name, const rr__backend **out, rr_error *err) {
    *out = &cards;
    return RR_OK;
}

const char *rr_backends(void) {
    return cards.name;
}

rr_status rr_backend_probe(const char *backend, rr_error *err) {
    return RR_OK;
}

static rr_status open_on(const char *devices, rr_engine **e, rr_error *err) {
    static rr_model     *m;
    const rr_engine_opts o = {.devices = devices, .max_batch_tokens = 64, .max_length = 16};

    if (!m)
        cr_assert_eq(rr_model_open("tests/data/tiny-xlmr", &m, err), RR_OK, "%s", err->text);
    return rr_engine_open(m, &o, e, err);
}

Test(devices, all_does_without_a_broken_card) {
    const rr_str   docs[] = {RR_STR("one"), RR_STR("two")};
    rr_engine     *e;
    rr_engine_info info;
    rr_error       err = {0};
    float          logits[2];

    for (int bad = 0; bad < 1 << DEVICES; bad++) {
        const rr_status s = (atomic_store(&broken, bad), open_on("all", &e, &err));
        const int       left = DEVICES - __builtin_popcount((unsigned)bad);

        if (left == 0) {
            cr_expect_eq(s, RR_E_DEVICE);
            cr_expect(strstr(err.text, "device 0: card 0 fell off the bus"), "%s", err.text);
            continue;
        }
        cr_assert_eq(s, RR_OK, "%d: %s", bad, err.text);
        rr_engine_describe(e, &info);
        cr_expect_eq(info.n_instances, left);
        if (bad)
            cr_expect(info.left_out && strstr(info.left_out, "fell off the bus"), "%d", bad);
        else
            cr_expect_null(info.left_out);
        cr_expect_eq(rr_score(e, RR_STR("query"), docs, 2, logits, &err), RR_OK, "%s", err.text);
        rr_engine_close(e);
    }
}

Test(devices, a_named_card_is_not_done_without) {
    rr_engine *e;
    rr_error   err = {0};

    atomic_store(&broken, 2);
    cr_assert_eq(open_on("0,1", &e, &err), RR_E_DEVICE);
    cr_expect(strstr(err.text, "card 1 fell off the bus"), "%s", err.text);
    cr_assert_eq(open_on("0,2", &e, &err), RR_OK, "%s", err.text);
    rr_engine_close(e);
    cr_assert_eq(open_on("7", &e, &err), RR_E_ARG);
}
