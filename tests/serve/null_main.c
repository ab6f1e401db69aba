/* null_main.c - `serve-null serve ..` is `rerank serve ..` over null_engine.c. */
#include "cli/cli.h"

int main(int argc, char **argv) {
    return argc > 1 ? cmd_serve(argc - 1, argv + 1) : EXIT_USAGE;
}
