/* json_out.h - write JSON into a growing buffer.
 *
 *     rr__json_out o = {0};
 *     rr__out_object(&o);
 *     rr__out_key(&o, "score");
 *     rr__out_f32(&o, 0.25f);
 *     rr__out_end_object(&o);            // o.ptr[0 .. o.len) is {"score":0.25}
 *     if (o.failed) ...                  // out of memory; the bytes are incomplete
 *     rr__out_reset(&o);                 // keep the memory for the next line
 *     rr__out_free(&o);
 *
 * Commas are put where they belong. Strings are escaped; bytes that are not UTF-8 become U+FFFD, so
 * that what is written is always valid. */
#ifndef RR_BASE_JSON_OUT_H
#define RR_BASE_JSON_OUT_H

#include "base/error.h"

typedef struct rr__json_out {
    char  *ptr;
    size_t len, cap;
    int    comma;  /* a value stands before */
    int    failed; /* out of memory         */
} rr__json_out;

void rr__out_object(rr__json_out *o);
void rr__out_end_object(rr__json_out *o);
void rr__out_array(rr__json_out *o);
void rr__out_end_array(rr__json_out *o);
void rr__out_key(rr__json_out *o, const char *key);
void rr__out_str(rr__json_out *o, rr_str s);
void rr__out_cstr(rr__json_out *o, const char *s);
void rr__out_i64(rr__json_out *o, int64_t v);
void rr__out_u64(rr__json_out *o, uint64_t v);
/* The shortest decimal that reads back as the same float or double; null if not finite. */
void rr__out_f32(rr__json_out *o, float v);
void rr__out_f64(rr__json_out *o, double v);
void rr__out_bool(rr__json_out *o, int v);
void rr__out_null(rr__json_out *o);

/* Bytes as they are: a line end behind a document, or a value already written. */
void rr__out_raw(rr__json_out *o, const char *ptr, size_t len);

/* Write all of it to a new file at path. */
rr_status rr__out_save(const rr__json_out *o, const char *path, rr_error *err);

void rr__out_reset(rr__json_out *o);
void rr__out_free(rr__json_out *o);

#endif
