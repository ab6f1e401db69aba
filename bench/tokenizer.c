/* tokenizer.c - our side of bench/tokenizer.py: opens the tokenizer of DIR, encodes each document
 * of FILE once (documents end in NUL), on one thread. Prints load ms, encode seconds, tokens, and
 * a sum over the ids by which the script sees that they are the reference's.
 *
 * Usage: tokenizer DIR FILE */
#include "text/tokenizer.h"
#include "base/clock.h"
#include "base/file.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    rr__tokenizer *t = NULL;
    rr__ids        ids = {0};
    rr__file       f = {0};
    rr_error       err;
    uint64_t       sum = 0, n = 0;
    int64_t        start, load, took;
    volatile char  touch = 0;

    if (argc != 3 || rr__file_map(argv[2], &f, &err)) {
        fprintf(stderr, "%s\n", argc == 3 ? err.text : "usage: tokenizer DIR FILE");
        return 1;
    }
    for (size_t i = 0; i < f.size; i += 4096)
        touch ^= ((const char *)f.ptr)[i];
    start = rr__now_ns();
    if (rr__tokenizer_open(argv[1], &t, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    load = rr__now_ns() - start;
    start = rr__now_ns();
    for (const char *p = f.ptr, *end = p + f.size; p < end; p += strlen(p) + 1) {
        ids.n = 0;
        if (rr__tokenizer_encode(t, (rr_str){p, strlen(p)}, &ids, &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        for (size_t i = 0; i < ids.n; i++)
            sum = sum * 31 + (uint64_t)ids.id[i];
        n += ids.n;
    }
    took = rr__now_ns() - start;
    printf("{\"load_ms\": %.1f, \"seconds\": %.6f, \"tokens\": %llu, \"sum\": %llu}\n",
           (double)load / 1e6, (double)took / 1e9, (unsigned long long)n,
           (unsigned long long)(sum & 0xffffffff));
    rr__ids_free(&ids);
    rr__tokenizer_close(t);
    rr__file_unmap(&f);
    return 0;
}
