/* main.c - rerank COMMAND [...]: picks the subcommand and nothing else. */
#include "cli.h"
#include "rerank.h"

#include <stdio.h>
#include <string.h>

/* Built where the compiler finds their library; elsewhere they say so. */
#ifdef RR_WITH_ONNX
#define ONNX(run) run, NULL
#else
#define ONNX(run) NULL, "libprotobuf-c-dev and protobuf-c-compiler"
#endif
#ifdef RR_WITH_SERVER
#define SERVER(run) run, NULL
#else
#define SERVER(run) NULL, "libmicrohttpd-dev and zlib1g-dev"
#endif
#define ALWAYS(run) run, NULL

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *missing; /* what was not there when run was not built */
    const char *summary;
} commands[] = {
    {"score", ALWAYS(cmd_score), "rank documents for a query, or score a stream of pairs"},
    {"tokenize", ALWAYS(cmd_tokenize), "token ids of texts or pairs"},
    {"info", ALWAYS(cmd_info), "the model, and what runs here and why not"},
    {"bench", ALWAYS(cmd_bench), "time requests, several precisions side by side"},
    {"eval", ALWAYS(cmd_eval), "ranking quality on BEIR folders, two precisions compared"},
    {"demo", ALWAYS(cmd_demo), "queries of an evaluation set, what rose and what fell"},
    {"calibrate", ALWAYS(cmd_calibrate), "activation scales for 8-bit engines from your own pairs"},
    {"compare", ALWAYS(cmd_compare), "where two precisions or backends part, layer by layer"},
    {"export", ONNX(cmd_export), "write a model as ONNX with dynamic axes"},
    {"build", ONNX(cmd_build), "a TensorRT engine with its manifest"},
    {"check", ONNX(cmd_check), "say what is wrong with an ONNX file"},
    {"serve", SERVER(cmd_serve), "serve a reranker over HTTP"},
    {NULL, NULL, NULL, NULL},
};

static void usage(FILE *to) {
    fprintf(to, "usage: rerank COMMAND [options]   (rerank COMMAND --help)\n\n");
    for (int i = 0; commands[i].name; i++)
        fprintf(to, "  %-10s %s%s\n", commands[i].name, commands[i].summary,
                commands[i].run ? "" : " (not in this build)");
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("rerank %s (%s)\n", rr_version(), rr_backends());
        return EXIT_OK;
    }
    for (int i = 0; commands[i].name; i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        if (commands[i].run)
            return commands[i].run(argc - 1, argv + 1);
        fprintf(stderr, "rerank: %s is not in this build: it needs %s; make setup, then make\n",
                argv[1], commands[i].missing);
        return EXIT_FAILED;
    }
    fprintf(stderr, "rerank: no command \"%s\"\n", argv[1]);
    usage(stderr);
    return EXIT_USAGE;
}
