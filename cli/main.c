/* main.c - rerank COMMAND [...]: picks the subcommand and nothing else. */
#include "cli.h"
#include "rerank.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"score", cmd_score, "rank documents for a query, or score a stream of pairs"},
    {"tokenize", cmd_tokenize, "token ids of texts or pairs"},
    {"info", cmd_info, "the model, and what runs here and why not"},
    {"bench", cmd_bench, "time requests, several precisions side by side"},
    {"eval", cmd_eval, "ranking quality on BEIR folders, two precisions compared"},
    {"demo", cmd_demo, "queries of an evaluation set, what rose and what fell"},
    {"calibrate", cmd_calibrate, "activation scales for 8-bit engines from your own pairs"},
    {"compare", cmd_compare, "where two precisions or backends part, layer by layer"},
#ifdef RR_WITH_ONNX
    {"export", cmd_export, "write a model as ONNX with dynamic axes"},
    {"build", cmd_build, "a TensorRT engine with its manifest"},
    {"check", cmd_check, "say what is wrong with an ONNX file"},
#endif
#ifdef RR_WITH_SERVER
    {"serve", cmd_serve, "serve a reranker over HTTP"},
#endif
    {NULL, NULL, NULL},
};

static void usage(FILE *to) {
    fprintf(to, "usage: rerank COMMAND [options]   (rerank COMMAND --help)\n\n");
    for (int i = 0; commands[i].name; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
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
    for (int i = 0; commands[i].name; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "rerank: no command \"%s\"\n", argv[1]);
    usage(stderr);
    return EXIT_USAGE;
}
