/* tokenize.c - rerank tokenize: token ids of texts or of a stream of pairs; needs no weights. */
#include "cli.h"
#include "lines.h"
#include "options.h"
#include "pairs.h"

#include "base/json_out.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char summary[] =
    "Prints the tokens of each TEXT, or with --pairs one JSON line of ids a pair. Reads only the\n"
    "tokenizer files of the model directory.";

static rr_status one(const rr_model *model, rr_str text, int json, rr_error *err) {
    size_t       n = 0;
    rr_token    *t = NULL;
    rr__json_out o = {0};
    rr_status    s = rr_tokenize(model, text, 1, NULL, 0, &n, err);

    if (!s && !(t = malloc((n + 1) * sizeof *t)))
        s = rr__fail(err, RR_E_NOMEM, "%zu tokens", n);
    if (!s)
        s = rr_tokenize(model, text, 1, t, n, &n, err);
    for (size_t i = 0; i < n && !s && !json; i++) {
        rr_str piece = rr_token_text(model, t[i].id);

        printf("%7d  %.*s\n", (int)t[i].id, (int)piece.len, piece.ptr);
    }
    if (!s && json) {
        rr__out_object(&o);
        rr__out_key(&o, "ids");
        rr__out_array(&o);
        for (size_t i = 0; i < n; i++)
            rr__out_i64(&o, t[i].id);
        rr__out_end_array(&o);
        rr__out_key(&o, "pieces");
        rr__out_array(&o);
        for (size_t i = 0; i < n; i++)
            rr__out_str(&o, rr_token_text(model, t[i].id));
        rr__out_end_array(&o);
        rr__out_end_object(&o);
        cli_put_json(stdout, &o);
    }
    rr__out_free(&o);
    free(t);
    return s;
}

int cmd_tokenize(int argc, char **argv) {
    const char    *pairs = NULL;
    int            json = 0, skip_bad = 0;
    cli_common     common = {0};
    const cli_flag flags[] = {
        {"pairs", 0, CLI_TEXT, &pairs, "FILE",
         "{\"query\", \"document\"} lines; - is standard input", 0, 0},
        {"json", 0, CLI_BOOL, &json, NULL, "one JSON line a text", 0, 0},
        {"skip-bad", 0, CLI_BOOL, &skip_bad, NULL,
         "answer a line that is no pair with {\"error\"} and go on", 0, 0},
    };
    const cli_command c = {"tokenize",
                           "[options] TEXT ... | --pairs FILE",
                           summary,
                           flags,
                           sizeof flags / sizeof flags[0],
                           &common,
                           "Exit status: 0 done, 1 input or model failed, 2 wrong usage.\n"};
    cli_rest          rest;
    rr_error          err = {0};
    rr_model         *model = NULL;
    rr_status         s;
    int               code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (!pairs == !rest.n)
        return cli_fail("tokenize", EXIT_USAGE, "give either texts or --pairs FILE");
    if (pairs) {
        s = cli_pairs_tokenize(pairs, &common, skip_bad, &err);
    } else {
        s = rr_tokenizer_open(cli_model_dir(&common), &model, &err);
        for (int i = 0; i < rest.n && !s; i++)
            s = one(model, (rr_str){rest.arg[i], strlen(rest.arg[i])}, json, &err);
        rr_model_close(model);
    }
    if (!s)
        s = cli_flush(&err);
    return s ? cli_fail("tokenize", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
