/* cache.h - documents seen before, by their bytes, with their token ids.
 *
 * Retrieval sends the same passages again and again; a hit costs a hash and two comparisons of
 * memory instead of a tokenization. A hash alone never decides: the bytes are compared. 16 shards
 * with a lock each; eviction is CLOCK (an entry that was hit since the hand last passed stays). */
#ifndef RR_API_CACHE_H
#define RR_API_CACHE_H

#include "text/tokenizer.h"

typedef struct rr__cache rr__cache;

/* tokens: room for that many 4-byte units: ids, and the documents' own bytes. */
rr_status rr__cache_open(int64_t tokens, rr__cache **out, rr_error *err);
void      rr__cache_close(rr__cache *c);

/* Append the document's ids to out. 1 on a hit, 0 on a miss or without memory. */
int rr__cache_get(rr__cache *c, rr_str doc, rr__ids *out);

/* Remember them. A document too large for its share of the cache is not kept. */
void rr__cache_put(rr__cache *c, rr_str doc, const int32_t *id, size_t n);

void rr__cache_counts(rr__cache *c, uint64_t *hits, uint64_t *misses);

#endif
