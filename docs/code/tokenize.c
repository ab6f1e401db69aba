/* tokenize.c - tokens and their place in the text, with the tokenizer files alone.
 *
 *     cc tokenize.c $(pkg-config --cflags --libs rerank) -o tokenize && ./tokenize MODEL_DIR */
#include <rerank.h>

#include <stdio.h>

int main(int argc, char **argv) {
    rr_error       err;
    rr_model      *model = NULL;
    rr_str         query = RR_STR("東京の天気"), doc = RR_STR("Tokyo: sunny, 21 °C.");
    rr_token       token[64];
    int32_t        ids[16];
    size_t         n;
    rr_doc_info    info;
    rr_submit_opts opts = {.max_length = 16};

    if (rr_tokenizer_open(argc > 1 ? argv[1] : "models/mini", &model, &err) ||
        rr_tokenize(model, doc, 1, token, 64, &n, &err)) {
        fprintf(stderr, "%s: %s\n", rr_status_name(err.status), err.text);
        rr_model_close(model);
        return 1;
    }
    for (size_t i = 0; i < n && i < 64;
         i++) { /* n is the full count even where the array is full */
        rr_str piece = rr_token_text(model, token[i].id);

        printf("%6d  bytes %2zu to %2zu  %.*s\n", (int)token[i].id, token[i].start, token[i].end,
               (int)piece.len, piece.ptr);
    }
    if (!rr_tokenize_pair(model, query, doc, &opts, ids, 16, &n, &info, &err))
        printf("pair: %d tokens, %d kept%s\n", (int)info.tokens, (int)info.kept,
               info.truncated ? ", truncated" : "");
    rr_model_close(model);
    return 0;
}
