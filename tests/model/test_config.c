/* test_config.c - config.json: what is supported, and what is refused with which words. */
#include "model/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define SIZES                                                                                      \
    "\"hidden_size\":64,\"num_hidden_layers\":3,\"num_attention_heads\":4,"                        \
    "\"intermediate_size\":96,\"vocab_size\":100,\"max_position_embeddings\":40"
#define XLMR "\"architectures\":[\"XLMRobertaForSequenceClassification\"]"
#define BERT "\"architectures\":[\"BertForSequenceClassification\"]"
#define ONE  "\"id2label\":{\"0\":\"relevance\"}"

static rr_status parse(const char *json, rr__config *c, rr__arena *a, rr_error *err) {
    return rr__config_parse("config.json", json, strlen(json), a, c, err);
}

Test(config, architectures_are_data) {
    rr__arena  a = {0};
    rr__config c;
    rr_error   err;

    cr_assert_eq(parse("{" XLMR "," SIZES "," ONE ",\"layer_norm_eps\":1e-05,\"pad_token_id\":1,"
                       "\"type_vocab_size\":1,\"classifier_dropout\":null,\"x\":[{}]}",
                       &c, &a, &err),
                 RR_OK, "%s", err.text);
    cr_assert(c.d_model == 64 && c.n_layer == 3 && c.n_head == 4 && c.d_ff == 96);
    cr_assert(c.vocab_size == 100 && c.n_pos == 40 && c.n_type == 1 && c.pad_id == 1);
    cr_assert(c.ln_eps == 1e-5f && c.arch->pos_behind_pad == 1);
    cr_assert_str_eq(c.label, "relevance");

    cr_assert_eq(
        parse("{" BERT "," SIZES ",\"num_labels\":1,\"layer_norm_eps\":null}", &c, &a, &err), RR_OK,
        "%s", err.text);
    cr_assert(c.n_type == 2 && c.pad_id == 0 && c.ln_eps == 1e-12f && c.arch->pos_behind_pad == 0);
    cr_assert_str_eq(c.arch->out, "classifier");
    rr__arena_free(&a);
}

Test(config, refuses_and_names_the_key) {
    static const struct {
        const char *json;
        rr_status   status;
        const char *text;
    } cases[] = {
        {"", RR_E_FORMAT, "config.json: top: byte 0: unexpected end"},
        {"[]", RR_E_FORMAT, "expected an object"},
        {"{" SIZES "," ONE "}", RR_E_FORMAT, "architectures is missing"},
        {"{\"architectures\":[\"LlamaForCausalLM\"]," SIZES "," ONE "}", RR_E_UNSUPPORTED,
         "architecture LlamaForCausalLM is not supported"},
        {"{\"architectures\":[\"a\\nb\"]," SIZES "," ONE "}", RR_E_UNSUPPORTED, "a?b"},
        {"{" XLMR "," SIZES "," ONE ",\"layer_norm_eps\":NaN}", RR_E_FORMAT,
         "NaN and Infinity are not JSON"},
        {"{" XLMR "," SIZES "," ONE ",\"layer_norm_eps\":Infinity}", RR_E_FORMAT,
         "layer_norm_eps: byte "},
        {"{" XLMR "," SIZES "," ONE ",\"layer_norm_eps\":1e999}", RR_E_FORMAT, "out of range"},
        {"{" XLMR "," SIZES "," ONE ",\"layer_norm_eps\":-1e-5}", RR_E_FORMAT, "layer_norm_eps is"},
        {"{" XLMR "," SIZES "," ONE ",\"layer_norm_eps\":0}", RR_E_FORMAT, "layer_norm_eps is 0"},
        {"{" XLMR "," SIZES "}", RR_E_UNSUPPORTED, "num_labels is 2"},
        {"{" XLMR "," SIZES ",\"num_labels\":3}", RR_E_UNSUPPORTED, "num_labels is 3"},
        {"{" XLMR "," SIZES "," ONE ",\"num_labels\":2}", RR_E_UNSUPPORTED, "num_labels is 2"},
        {"{" XLMR "," SIZES ",\"id2label\":{\"0\":\"a\",\"1\":\"b\"}}", RR_E_UNSUPPORTED,
         "num_labels is 2"},
        {"{" XLMR "," SIZES "," ONE ",\"hidden_act\":\"gelu_new\"}", RR_E_UNSUPPORTED,
         "hidden_act gelu_new is not supported"},
        {"{" XLMR "," SIZES "," ONE ",\"position_embedding_type\":\"relative_key\"}",
         RR_E_UNSUPPORTED, "position_embedding_type relative_key"},
        {"{" XLMR "," SIZES "," ONE ",\"is_decoder\":true}", RR_E_UNSUPPORTED, "is_decoder"},
        {"{" XLMR "," SIZES "," ONE ",\"num_attention_heads\":5}", RR_E_FORMAT,
         "hidden_size 64 is no multiple of num_attention_heads 5"},
        {"{" XLMR "," SIZES "," ONE ",\"num_attention_heads\":0}", RR_E_FORMAT,
         "num_attention_heads is 0, not in 1..65536"},
        {"{" XLMR "," SIZES "," ONE ",\"num_hidden_layers\":-1}", RR_E_FORMAT,
         "num_hidden_layers is -1"},
        {"{" XLMR "," SIZES "," ONE ",\"vocab_size\":4294967297}", RR_E_FORMAT,
         "vocab_size is 4294967297"},
        {"{" XLMR "," SIZES "," ONE ",\"hidden_size\":99999999999999999999}", RR_E_FORMAT,
         "integer is out of range"},
        {"{" XLMR "," SIZES "," ONE ",\"hidden_size\":\"64\"}", RR_E_FORMAT,
         "hidden_size: byte 232: expected an integer"},
        {"{" XLMR "," SIZES "," ONE ",\"pad_token_id\":100}", RR_E_FORMAT, "pad_token_id is 100"},
        {"{" XLMR "," SIZES "," ONE ",\"pad_token_id\":39}", RR_E_FORMAT,
         "max_position_embeddings 40 leaves no position behind pad_token_id 39"},
        {"{" XLMR ",\"hidden_size\":64}", RR_E_UNSUPPORTED, "num_labels"},
        {"{" XLMR ",\"hidden_size\":64," ONE "}", RR_E_FORMAT, "num_hidden_layers is missing"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rr__arena  a = {0};
        rr__config c;
        rr_error   err = {0};

        cr_assert_eq(parse(cases[i].json, &c, &a, &err), cases[i].status, "%s: %s", cases[i].json,
                     err.text);
        cr_assert_not_null(strstr(err.text, cases[i].text), "%s: %s", cases[i].json, err.text);
        rr__arena_free(&a);
    }
}
