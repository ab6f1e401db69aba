/* options.h - flags as tables: one entry gives the parser, the help text and the default.
 *
 *     static const cli_flag flags[] = {{"top-n", 'n', CLI_INT, &top_n, "N", "print the best N", 0, 1e9}};
 *     cli_command c = {"score", "[options] -q QUERY [DOC...]", "...", flags, 1, common, epilog};
 *     int code = cli_parse(&c, argc, argv, &rest);      // -1: go on, else the exit status
 *
 * Flags that choose model, backend and truncation mean the same on every subcommand: cli_common. */
#ifndef RR_CLI_OPTIONS_H
#define RR_CLI_OPTIONS_H

#include "rerank.h"

typedef enum cli_kind {
    CLI_BOOL,
    CLI_INT,
    CLI_INT32,
    CLI_SIZE, /* whole, with K, M or G (of 1024) allowed                         */
    CLI_REAL,
    CLI_TEXT,
    CLI_WORD,  /* one of the words of arg, "right|left"                            */
    CLI_WORDS, /* some of them, "fp32,int8"                                        */
    CLI_LIST,  /* may be given several times; into is a cli_list                   */
    CLI_TITLE  /* no flag: a heading of the help                                   */
} cli_kind;

typedef struct cli_list {
    const char *item[64];
    int         n;
} cli_list;

typedef struct cli_flag {
    const char *name;   /* without -- */
    char        letter; /* 0 = none   */
    cli_kind    kind;
    void       *into;       /* int, int64_t, int32_t, double, const char * or cli_list */
    const char *arg, *help; /* "N", "print the best N" */
    double      lo, hi;     /* for numbers */
} cli_flag;

typedef struct cli_rest {
    char **arg; /* what is no flag, in order; everything after -- */
    int    n;
} cli_rest;

typedef struct cli_common {
    const char *model, *backend, *precision, *devices, *truncation, *side, *calibration;
    const char *engine, *trt_lib;
    int64_t     threads, max_length, max_query, max_batch_tokens;
    int         rebuild, fast;
} cli_common;

typedef struct cli_command {
    const char     *name, *usage, *summary;
    const cli_flag *flag;
    int             n_flag;
    cli_common     *common; /* NULL: the subcommand takes no model */
    const char     *epilog; /* examples, exit status */
} cli_command;

#define CLI_BACKENDS   "ref|cpu|cuda|trt"
#define CLI_PRECISIONS "auto|fp32|bf16|fp16|int8|fp8"

/* Parse; on --help print and return 0, on wrong usage say what and return 2, else -1. rest->arg
 * points into argv, whose order changes. */
int cli_parse(const cli_command *c, int argc, char **argv, cli_rest *rest);

/* Before that: let variables stand for flags, RERANK_TOP_N for --top-n. -1, or 2 where one is wrong. */
int cli_environment(const cli_command *c);

/* Print "rerank NAME: text" to stderr; returns code. */
int cli_fail(const char *command, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Flush standard output; RR_E_IO if anything written to it was lost. */
rr_status cli_flush(rr_error *err);

/* The word of "a|b|c" (or of a list with another separator) nearest to text, in word[64]; 0 if none
 * is near. */
int cli_nearest(const char *text, const char *words, char word[64]);

/* -m, or RERANK_MODEL, or the embedded model beside the program or installed. Never NULL. */
const char *cli_model_dir(const cli_common *c);

/* The flags of one of several engines that are compared: --calibration is of those in 8 bits only,
 * --engine of TensorRT's. */
cli_common cli_side(cli_common c);

/* Engine options as the flags say. */
void cli_engine_opts(const cli_common *c, rr_engine_opts *o);

/* Model and engine as the flags say. On failure both are closed and NULL. */
rr_status cli_open(const cli_common *c, rr_model **model, rr_engine **engine, rr_error *err);

#endif
