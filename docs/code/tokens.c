/* tokens.c - what the model sees: tokens of a text with their bytes, and the ids of a pair with what
 * truncation took. Needs only the tokenizer files of the folder. */
#include <rerank.h>
#include <stdio.h>

int main(int argc, char **argv) {
    const rr_str   text = RR_STR("Paris is the capital of France.");
    rr_submit_opts opts = {.max_length = 12};
    rr_error       err = {0};
    rr_model      *model = NULL;
    rr_token       token[64];
    int32_t        id[64];
    size_t         n = 0;
    rr_doc_info    info;
    rr_status      s = rr_tokenizer_open(argc > 1 ? argv[1] : "models/mini", &model, &err);

    if (!s)
        s = rr_tokenize(model, text, 1, token, 64, &n, &err);
    for (size_t i = 0; i < n && i < 64 && !s; i++) {
        rr_str piece = rr_token_text(model, token[i].id);

        printf("%6d  %-10.*s \"%.*s\"\n", (int)token[i].id, (int)piece.len, piece.ptr,
               (int)(token[i].end - token[i].start), text.ptr + token[i].start);
    }
    if (!s)
        s = rr_tokenize_pair(model, RR_STR("capital of France"), text, &opts, id, 64, &n, &info,
                             &err);
    if (s)
        fprintf(stderr, "%s: %s\n", rr_status_name(s), err.text);
    else
        printf("pair: %d tokens, %d kept\n", (int)info.tokens, (int)info.kept);
    rr_model_close(model);
    return s != RR_OK;
}
