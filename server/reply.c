/* reply.c - what several dialects take from a request and write in an answer. */
#include "server/request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- taking ---------------------------------------------------------------------------------- */

static int take_policy(rr__request *r) {
    const rr__fields *f = &r->fields;

    if (f->truncate == RR__FALSE || (f->truncate == RR__UNSET && r->server->o.refuse_long))
        r->opts.truncation = RR_TRUNC_ERROR;
    if (f->truncation_policy.ptr && f->truncate != RR__FALSE) {
        if (rr__json_eq(f->truncation_policy, "longest_first"))
            r->opts.truncation = RR_TRUNC_LONGEST_FIRST;
        else if (rr__json_eq(f->truncation_policy, "only_second"))
            r->opts.truncation = RR_TRUNC_ONLY_SECOND;
        else
            return rr__problem_set(r, RR__P_FIELD,
                                   "truncation_policy: expected only_second or longest_first");
    }
    if (f->side.ptr) {
        if (f->side.len == 4 && strncasecmp(f->side.ptr, "left", 4) == 0)
            r->opts.side = RR_SIDE_LEFT;
        else if (f->side.len != 5 || strncasecmp(f->side.ptr, "right", 5) != 0)
            return rr__problem_set(r, RR__P_FIELD, "truncation_direction: expected Left or Right");
    }
    return 1;
}

/* A length in tokens; -1 and 0 mean the default, as vLLM has it. */
static int take_length(rr__request *r, const rr__num *num, const char *name, int32_t *out) {
    if (num->set && num->v > 0)
        *out = num->v < r->server->model_info.max_length || !r->server->model_info.max_length
                   ? (int32_t)(num->v < INT32_MAX ? num->v : INT32_MAX)
                   : r->server->model_info.max_length;
    return !num->set || num->v >= -1 ||
           rr__problem_set(r, RR__P_FIELD, "%s: expected a number of tokens", name);
}

int rr__take_options(rr__request *r) {
    const rr__fields *f = &r->fields;
    int64_t           ms = f->deadline_ms.set ? f->deadline_ms.v : r->deadline_ms;

    if (f->deadline_ms.set && f->deadline_ms.v <= 0)
        return rr__problem_set(r, RR__P_FIELD, "deadline_ms: expected a positive number");
    if (ms > 0 && ms < INT32_MAX)
        r->opts.deadline_us = r->start_us + ms * 1000;
    if (f->priority.set)
        r->opts.priority = (int32_t)(f->priority.v < -100  ? -100
                                     : f->priority.v > 100 ? 100
                                                           : f->priority.v);
    if (f->top_n.set && f->top_n.v < 0)
        return rr__problem_set(r, RR__P_FIELD, "top_n: expected 0 (all) or more");
    r->top_n = f->top_n.set ? (size_t)f->top_n.v : 0;
    r->raw = f->raw_scores == RR__TRUE || f->use_activation == RR__FALSE;
    r->echo = f->return_text == RR__TRUE || f->return_documents == RR__TRUE;
    r->details = f->details == RR__TRUE;
    r->opts.max_query = r->server->o.max_query;
    return take_policy(r) && take_length(r, &f->max_length, "max_length", &r->opts.max_length) &&
           take_length(r, &f->max_doc, "max_tokens_per_doc", &r->opts.max_doc) &&
           take_length(r, &f->max_query, "max_tokens_per_query", &r->opts.max_query);
}

int rr__take_docs(rr__request *r, const rr__texts *docs, const char *name) {
    if (!docs->set)
        return rr__problem_set(r, RR__P_FIELD, "%s: missing", name);
    if (docs->n == 0)
        return rr__problem_set(r, RR__P_EMPTY, "%s: the list is empty", name);
    if (docs->n > (size_t)r->server->o.max_docs)
        return rr__problem_set(r, RR__P_TOO_LARGE, "%s: %zu documents, the limit is %d", name,
                               docs->n, r->server->o.max_docs);
    r->docs = docs->at;
    r->n = docs->n;
    for (size_t i = 0; i < docs->n; i++)
        r->n_chars += docs->at[i].len;
    return 1;
}

/* ---- writing --------------------------------------------------------------------------------- */

float rr__activate(const rr__request *r, float logit) {
    return r->raw ? logit : rr_sigmoid(logit);
}

static int by_score(const void *pa, const void *pb) {
    const rr__ranked *a = pa, *b = pb;

    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

const rr__ranked *rr__rank_some(rr__request *r, size_t first, size_t *n) {
    size_t       all = 0;
    const float *scores = rr_job_scores(r->job, &all);
    size_t       most = scores && first < all ? all - first : 0;
    rr__ranked  *ranked = rr__arena_calloc(&r->arena, *n < most ? *n : most, sizeof *ranked);

    if (!scores || !ranked) {
        r->out.failed = 1;
        return NULL;
    }
    *n = *n < most ? *n : most;
    for (size_t i = 0; i < *n; i++)
        ranked[i] = (rr__ranked){scores[first + i], (uint32_t)i};
    qsort(ranked, *n, sizeof *ranked, by_score); /* logits: distinct where sigmoids are equal */
    return ranked;
}

const rr__ranked *rr__rank(rr__request *r, size_t *n_out) {
    const rr__ranked *ranked;

    *n_out = SIZE_MAX;
    ranked = rr__rank_some(r, 0, n_out);
    if (r->top_n && r->top_n < *n_out)
        *n_out = r->top_n;
    return ranked;
}

void rr__write_model(rr__request *r) {
    rr__out_key(&r->out, "model");
    if (r->fields.model.ptr)
        rr__out_str(&r->out, r->fields.model);
    else
        rr__out_cstr(&r->out, r->server->model_name);
}

void rr__write_details(rr__request *r, size_t index) {
    size_t             n = 0;
    const rr_doc_info *info = rr_job_docs(r->job, &n);

    if (!r->details || !info || index >= n)
        return;
    rr__out_key(&r->out, "tokens");
    rr__out_i64(&r->out, info[index].tokens);
    rr__out_key(&r->out, "tokens_used");
    rr__out_i64(&r->out, info[index].kept);
    rr__out_key(&r->out, "truncated");
    rr__out_bool(&r->out, info[index].truncated);
}

void rr__write_plain(rr__request *r, const char *score_key) {
    size_t            n = 0;
    const rr__ranked *ranked = rr__rank(r, &n);
    rr__json_out     *o = &r->out;

    rr__out_array(o);
    for (size_t i = 0; ranked && i < n; i++) {
        rr__out_object(o);
        rr__out_key(o, score_key);
        rr__out_f32(o, rr__activate(r, ranked[i].score));
        rr__out_key(o, "index");
        rr__out_u64(o, ranked[i].index);
        if (r->echo) {
            rr__out_key(o, "document");
            rr__out_str(o, r->docs[ranked[i].index]);
        }
        rr__write_details(r, ranked[i].index);
        rr__out_end_object(o);
    }
    rr__out_end_array(o);
}

static void ms(rr__json_out *o, const char *key, int64_t us) {
    rr__out_key(o, key);
    rr__out_f64(o, (double)us / 1e3);
}

void rr__write_timings(rr__request *r) {
    if (!r->details)
        return;
    rr__out_key(&r->out, "timings");
    rr__out_object(&r->out);
    ms(&r->out, "parse_ms", r->parsed_us - r->start_us);
    ms(&r->out, "tokenize_ms", r->timing.tokenize_us);
    ms(&r->out, "queue_ms", r->timing.queue_us);
    ms(&r->out, "forward_ms", r->timing.forward_us);
    ms(&r->out, "total_ms", rr_now_us() - r->start_us);
    rr__out_key(&r->out, "batches");
    rr__out_i64(&r->out, r->timing.batches);
    rr__out_end_object(&r->out);
}

void rr__write_usage(rr__request *r) {
    rr__out_key(&r->out, "usage");
    rr__out_object(&r->out);
    rr__out_key(&r->out, "prompt_tokens");
    rr__out_u64(&r->out, r->n_tokens);
    rr__out_key(&r->out, "total_tokens");
    rr__out_u64(&r->out, r->n_tokens);
    rr__out_end_object(&r->out);
}

void rr__write_problem(rr__request *r) {
    r->http = r->dialect->fail(r);
}
