/* encode.c - the tokenizer as a filter, for the tests in Python: one JSON object a line in,
 *
 *     {"text": "..."}              -> [ids]
 *     {"text": "...", "spans": 1}  -> [[id, start, end], ...] with the single template, in bytes
 *     {"hex": "ff00"}              -> [ids] of these raw bytes
 *     {"query": "...", "doc": "...", "max_length": 512, "truncation": 1, "side": 0, "max_query": 0}
 *                                  -> [[ids], seg, tokens, kept, truncated], or {"error": "..."}
 *
 * Usage: encode DIR */
#include "base/json.h"
#include "text/pair.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct line {
    rr_str  text, query, doc, hex;
    int64_t spans, max_length, max_query, truncation, side;
} line;

static int read_line(rr__json *j, line *l) {
    rr_str key;

    *l = (line){.max_length = 512};
    rr__json_object(j);
    while (rr__json_key(j, &key)) {
        if (rr__json_eq(key, "text"))
            rr__json_string(j, &l->text);
        else if (rr__json_eq(key, "query"))
            rr__json_string(j, &l->query);
        else if (rr__json_eq(key, "doc"))
            rr__json_string(j, &l->doc);
        else if (rr__json_eq(key, "hex"))
            rr__json_string(j, &l->hex);
        else if (rr__json_eq(key, "spans"))
            rr__json_i64(j, &l->spans);
        else if (rr__json_eq(key, "max_length"))
            rr__json_i64(j, &l->max_length);
        else if (rr__json_eq(key, "max_query"))
            rr__json_i64(j, &l->max_query);
        else if (rr__json_eq(key, "truncation"))
            rr__json_i64(j, &l->truncation);
        else if (rr__json_eq(key, "side"))
            rr__json_i64(j, &l->side);
        else
            rr__json_skip(j);
    }
    return rr__json_done(j);
}

static void print_ids(const rr__ids *ids) {
    putchar('[');
    for (size_t i = 0; i < ids->n; i++)
        printf(i ? ",%d" : "%d", ids->id[i]);
    putchar(']');
}

static rr_status spans(const rr__tokenizer *t, rr_str text, rr_error *err) {
    size_t    n = 0, cap = text.len * 4 + 16;
    rr_token *token = malloc(cap * sizeof *token);
    rr_status st = rr__tokenizer_encode_spans(t, text, 1, token, cap, &n, err);

    for (size_t i = 0; !st && i < n && i < cap; i++)
        printf("%s[%d,%zu,%zu]", i ? "," : "[", token[i].id, token[i].start, token[i].end);
    if (!st)
        puts(n ? "]" : "[]");
    free(token);
    return st;
}

static rr_status pair(const rr__tokenizer *t, const line *l, rr_error *err) {
    rr__pair_opts o = {(int32_t)l->max_length, (int32_t)l->max_query, 0,
                       (rr_truncation)l->truncation, (rr_side)l->side};
    rr__ids       query = {0}, out = {0};
    rr_doc_info   info;
    int32_t       seg;
    rr_status     st = rr__tokenizer_encode(t, l->query, &query, err);

    if (!st)
        st = rr__pair_encode(t, query.id, query.n, l->doc, &o, &out, &seg, &info, err);
    if (!st) {
        putchar('[');
        print_ids(&out);
        printf(",%d,%d,%d,%d]\n", seg, info.tokens, info.kept, info.truncated);
    }
    rr__ids_free(&query);
    rr__ids_free(&out);
    return st;
}

static rr_status ids(const rr__tokenizer *t, rr_str text, rr_error *err) {
    rr__ids   out = {0};
    rr_status st = rr__tokenizer_encode(t, text, &out, err);

    if (!st) {
        print_ids(&out);
        putchar('\n');
    }
    rr__ids_free(&out);
    return st;
}

static rr_status from_hex(const rr__tokenizer *t, rr_str hex, rr_error *err) {
    char     *raw = malloc(hex.len / 2 + 1), byte[3] = {0};
    rr_status st;

    for (size_t i = 0; i + 1 < hex.len; i += 2) {
        byte[0] = hex.ptr[i];
        byte[1] = hex.ptr[i + 1];
        raw[i / 2] = (char)strtol(byte, NULL, 16);
    }
    st = ids(t, (rr_str){raw, hex.len / 2}, err);
    free(raw);
    return st;
}

int main(int argc, char **argv) {
    rr__tokenizer *t = NULL;
    rr__arena      arena = {0};
    rr_error       err;
    char          *text = NULL;
    size_t         cap = 0;
    ssize_t        n;

    if (argc != 2 || rr__tokenizer_open(argv[1], &t, &err)) {
        fprintf(stderr, "encode: %s\n", argc == 2 ? err.text : "usage: encode DIR");
        return 1;
    }
    while ((n = getline(&text, &cap, stdin)) > 0) {
        rr__json  j;
        line      l;
        rr_status st;

        rr__arena_reset(&arena);
        rr__json_init(&j, text, (size_t)n, &arena);
        if (!read_line(&j, &l)) {
            rr__json_fail(&j, "stdin", &err);
            fprintf(stderr, "encode: %s\n", err.text);
            return 1;
        }
        st = l.query.ptr ? pair(t, &l, &err)
             : l.hex.ptr ? from_hex(t, l.hex, &err)
             : l.spans   ? spans(t, l.text, &err)
                         : ids(t, l.text, &err);
        if (st)
            printf("{\"error\": \"%s\"}\n", rr_status_name(st));
    }
    free(text);
    rr__arena_free(&arena);
    rr__tokenizer_close(t);
    return 0;
}
