/* fuzz_jsonl.c - one line of a JSONL file as documents or pairs: what parses can be read to its last
 * byte, and the record written anew parses and is written the same. */
#include "cli/lines.h"

#include "base/json_out.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(rr__json_out *o, const char *key, rr_str s) {
    if (s.ptr) {
        rr__out_key(o, key);
        rr__out_str(o, s);
    }
}

/* 1 and the record written in a fixed order, or 0 if the line is none. */
static int read_and_write(const void *ptr, size_t size, rr__arena *arena, rr__json_out *o) {
    cli_record r;
    rr_error   err;

    if (cli_record_parse((rr_str){ptr, size}, arena, "line 1", &r, &err))
        return 0;
    rr__out_object(o);
    put(o, "id", r.id);
    put(o, "text", r.text);
    put(o, "query", r.query);
    put(o, "document", r.document);
    rr__out_end_object(o);
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rr__arena    arena = {0};
    rr__json_out once = {0}, twice = {0};

    if (read_and_write(data, size, &arena, &once)) {
        if (!read_and_write(once.ptr, once.len, &arena, &twice))
            abort();
        if (once.len != twice.len || memcmp(once.ptr, twice.ptr, once.len) != 0)
            abort();
    }
    rr__out_free(&once);
    rr__out_free(&twice);
    rr__arena_free(&arena);
    return 0;
}
