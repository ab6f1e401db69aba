/* options.c - what callers leave at zero, and what they may not ask for. */
#include "api/api.h"

#include <stdlib.h>
#include <string.h>

static int32_t or_default(int32_t v, int32_t d) {
    return v ? v : d;
}

static rr_status check_policy(rr_truncation truncation, rr_side side, rr_error *err) {
    if ((unsigned)truncation > RR_TRUNC_ERROR)
        return rr__fail(err, RR_E_ARG, "unknown truncation %d", (int)truncation);
    if ((unsigned)side > RR_SIDE_LEFT)
        return rr__fail(err, RR_E_ARG, "unknown side %d", (int)side);
    return RR_OK;
}

/* Ranges of every number, so that no product or allocation behind them can overflow. */
static rr_status check_ranges(const rr_engine_opts *o, rr_error *err) {
    const struct {
        const char *name;
        int64_t     value, low, high;
    } range[] = {
        {"instances", o->instances, 0, RR__MAX_INSTANCES},
        {"threads", o->threads, 0, 4096},
        {"tokenize_threads", o->tokenize_threads, 0, 256},
        {"max_batch_tokens", o->max_batch_tokens, 0, 1 << 24},
        {"max_batch_seqs", o->max_batch_seqs, 0, 1 << 20},
        {"max_queue_tokens", o->max_queue_tokens, 0, INT32_MAX},
        {"max_wait_us", o->max_wait_us, 0, 60000000},
        {"max_length", o->max_length, 0, 1 << 20},
        {"cache_tokens", o->cache_tokens, -1, (int64_t)1 << 40},
        {"fast", o->fast, 0, 1},
    };

    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++)
        if (range[i].value < range[i].low || range[i].value > range[i].high)
            return rr__fail(err, RR_E_ARG, "%s is %lld; it must be %lld to %lld", range[i].name,
                            (long long)range[i].value, (long long)range[i].low,
                            (long long)range[i].high);
    return RR_OK;
}

rr_status rr__engine_defaults(const rr__model *m, const rr_engine_opts *in, rr_engine_opts *out,
                              rr_error *err) {
    rr_engine_opts o = in ? *in : (rr_engine_opts){0};
    int32_t        cores = rr__cores();
    rr_status      s = check_ranges(&o, err);

    if (s == RR_OK)
        s = check_policy(o.truncation, o.side, err);
    if (s != RR_OK)
        return s;
    if (rr__precision_parse(o.precision) == RR__N_PRECISION)
        return rr__fail(err, RR_E_ARG,
                        "unknown precision \"%s\"; auto, fp32, bf16, fp16, int8, fp8", o.precision);
    o.instances = or_default(o.instances, 1);
    o.tokenize_threads = or_default(o.tokenize_threads, cores < 16 ? cores : 16);
    o.max_batch_tokens = or_default(o.max_batch_tokens, 16384);
    o.max_batch_seqs = or_default(o.max_batch_seqs, 1024);
    o.max_queue_tokens = o.max_queue_tokens ? o.max_queue_tokens : 4 << 20;
    o.cache_tokens = o.cache_tokens ? o.cache_tokens : 4 << 20;
    o.max_length = or_default(o.max_length, m->max_length < 512 ? m->max_length : 512);
    if (o.max_length > m->max_length)
        return rr__fail(err, RR_E_ARG, "max_length is %d; the model takes %d", (int)o.max_length,
                        (int)m->max_length);
    if (o.max_length > o.max_batch_tokens)
        return rr__fail(err, RR_E_ARG, "max_length is %d, but a batch holds only %d tokens",
                        (int)o.max_length, (int)o.max_batch_tokens);
    *out = o;
    return RR_OK;
}

rr_status rr__devices_parse(const char *text, int32_t *ordinal, int32_t *n, int *all,
                            rr_error *err) {
    const char *p = text ? text : "0";
    int32_t     found[RR__MAX_DEVICES], count = 0;

    *all = strcmp(p, "all") == 0;
    if (*all)
        return RR_OK;
    do {
        int32_t v = 0, digits = 0;

        for (; *p >= '0' && *p <= '9' && digits < 4; p++, digits++)
            v = v * 10 + (*p - '0');
        if (digits == 0 || (*p && *p != ',') || count == RR__MAX_DEVICES)
            return rr__fail(err, RR_E_ARG,
                            "devices \"%s\": want ordinals such as 0 or 0,1 (%d at most), or all",
                            text, RR__MAX_DEVICES);
        for (int32_t i = 0; i < count; i++)
            if (found[i] == v)
                return rr__fail(err, RR_E_ARG, "devices \"%s\": %d is named twice", text, (int)v);
        found[count++] = v;
    } while (*p++ == ',');
    memcpy(ordinal, found, (size_t)count * sizeof *ordinal);
    *n = count;
    return RR_OK;
}

rr_status rr__lengths_within(int32_t asked, int32_t most, int32_t *usual, int32_t *longest,
                             rr_error *err) {
    if (asked > most)
        return rr__fail(err, RR_E_ARG, "max_length is %d; this engine takes %d", (int)asked,
                        (int)most);
    *usual = *usual < most ? *usual : most;
    *longest = *longest < most ? *longest : most;
    return RR_OK;
}

rr_status rr__pair_options(const rr__tokenizer *t, const rr_submit_opts *in,
                           const rr_submit_opts *defaults, int32_t limit, rr__pair_opts *out,
                           rr_error *err) {
    rr_submit_opts o = in ? *in : (rr_submit_opts){0};
    int32_t        usual = defaults->max_length ? defaults->max_length : limit < 512 ? limit : 512;
    int32_t        least = rr__tokenizer_pair_special(t) + 1;
    rr_status      s = check_policy(o.truncation, o.side, err);

    if (s != RR_OK)
        return s;
    o.max_length = or_default(o.max_length, usual);
    if (o.max_length < least || o.max_length > limit)
        return rr__fail(err, RR_E_ARG, "max_length is %d; it must be %d to %d", (int)o.max_length,
                        (int)least, (int)limit);
    if (o.max_query < 0 || o.max_doc < 0)
        return rr__fail(err, RR_E_ARG, "max_query and max_doc must not be negative");
    if (o.priority < -100 || o.priority > 100)
        return rr__fail(err, RR_E_ARG, "priority is %d; it must be -100 to 100", (int)o.priority);
    if (o.truncation == RR_TRUNC_DEFAULT)
        o.truncation = defaults->truncation ? defaults->truncation : RR_TRUNC_ONLY_SECOND;
    if (o.side == RR_SIDE_RIGHT)
        o.side = defaults->side;
    *out = (rr__pair_opts){.max_length = o.max_length,
                           .max_query = o.max_query,
                           .max_doc = o.max_doc,
                           .truncation = o.truncation,
                           .side = o.side};
    return RR_OK;
}
