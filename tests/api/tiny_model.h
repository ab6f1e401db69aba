/* tiny_model.h - a whole model folder for tests of the API: tests/model/tiny.h's weights and a
 * tokenizer of 20 pieces. Pairs have 16 tokens at most. */
#ifndef TESTS_API_TINY_MODEL_H
#define TESTS_API_TINY_MODEL_H

#include "rerank.h"

#include "model/tiny.h"

/* "a b c" is three tokens; anything else is <unk>. */
#define TINY_TOKENIZER                                                                             \
    "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": ["          \
    "{\"id\": 0, \"content\": \"<s>\", \"single_word\": false, \"lstrip\": false, "                \
    "\"rstrip\": false, \"normalized\": false, \"special\": true}, "                               \
    "{\"id\": 1, \"content\": \"<pad>\", \"single_word\": false, \"lstrip\": false, "              \
    "\"rstrip\": false, \"normalized\": false, \"special\": true}, "                               \
    "{\"id\": 2, \"content\": \"</s>\", \"single_word\": false, \"lstrip\": false, "               \
    "\"rstrip\": false, \"normalized\": false, \"special\": true}, "                               \
    "{\"id\": 3, \"content\": \"<unk>\", \"single_word\": false, \"lstrip\": false, "              \
    "\"rstrip\": false, \"normalized\": false, \"special\": true}], "                              \
    "\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"Metaspace\", "                          \
    "\"replacement\": \"\\u2581\", \"prepend_scheme\": \"always\", \"split\": true}, "             \
    "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": ["                         \
    "{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, "                                      \
    "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "                                            \
    "{\"SpecialToken\": {\"id\": \"</s>\", \"type_id\": 0}}], \"pair\": ["                         \
    "{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, "                                      \
    "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "                                            \
    "{\"SpecialToken\": {\"id\": \"</s>\", \"type_id\": 0}}, "                                     \
    "{\"SpecialToken\": {\"id\": \"</s>\", \"type_id\": 0}}, "                                     \
    "{\"Sequence\": {\"id\": \"B\", \"type_id\": 0}}, "                                            \
    "{\"SpecialToken\": {\"id\": \"</s>\", \"type_id\": 0}}], \"special_tokens\": {"               \
    "\"<s>\": {\"id\": \"<s>\", \"ids\": [0], \"tokens\": [\"<s>\"]}, "                            \
    "\"</s>\": {\"id\": \"</s>\", \"ids\": [2], \"tokens\": [\"</s>\"]}}}, "                       \
    "\"decoder\": null, \"model\": {\"type\": \"Unigram\", \"unk_id\": 3, \"vocab\": ["            \
    "[\"<s>\", 0], [\"<pad>\", 0], [\"</s>\", 0], [\"<unk>\", 0], [\"\\u2581\", -9], "             \
    "[\"\\u2581a\", -1], [\"\\u2581b\", -1], [\"\\u2581c\", -1], [\"\\u2581d\", -1], "             \
    "[\"\\u2581e\", -1], [\"\\u2581f\", -1], [\"\\u2581g\", -1], [\"\\u2581h\", -1], "             \
    "[\"\\u2581i\", -1], [\"\\u2581j\", -1], [\"\\u2581k\", -1], [\"\\u2581l\", -1], "             \
    "[\"\\u2581m\", -1], [\"\\u2581n\", -1], [\"\\u2581o\", -1]], \"byte_fallback\": false}}"

static void tiny_model_write(tiny *m) {
    tiny_init(m);
    tiny_write(m);
    tiny_put(m, "tokenizer.json", TINY_TOKENIZER, strlen(TINY_TOKENIZER));
}

static void tiny_model_remove(tiny *m) {
    char path[160];

    snprintf(path, sizeof path, "%s/tokenizer.json", m->dir);
    unlink(path);
    tiny_remove(m);
}

static rr_model *tiny_open(tiny *m) {
    rr_model *model = NULL;
    rr_error  err = {0};

    tiny_model_write(m);
    cr_assert_eq(rr_model_open(m->dir, &model, &err), RR_OK, "%s", err.text);
    return model;
}

static rr_engine *tiny_engine(rr_model *model, const rr_engine_opts *opts) {
    rr_engine_opts o = opts ? *opts : (rr_engine_opts){0};
    rr_engine     *e = NULL;
    rr_error       err = {0};

    o.backend = "ref";
    cr_assert_eq(rr_engine_open(model, &o, &e, &err), RR_OK, "%s", err.text);
    return e;
}

#endif
