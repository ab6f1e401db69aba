/* beir.h - a reranking set in BEIR's layout, read whole into memory.
 *
 *     DIR/corpus.jsonl      {"_id", "text", "title"?}
 *     DIR/queries.jsonl     {"_id", "text"}
 *     DIR/qrels.tsv         query-id, corpus-id, score; or DIR/qrels/test.tsv
 *     DIR/candidates.tsv    query-id, corpus-id, rank: what to rerank; without it the whole corpus */
#ifndef RR_CLI_BEIR_H
#define RR_CLI_BEIR_H

#include "base/arena.h"

typedef struct beir_item {
    rr_str id, text;
} beir_item;

typedef struct beir_query {
    rr_str   id, text;
    size_t   n_doc;
    int32_t *doc;   /* [n_doc] indices into the corpus, in first-stage order */
    int32_t *grade; /* [n_doc] relevance, 0 = none                           */
    int32_t *ideal; /* [n_ideal] all grades above 0, falling                 */
    size_t   n_ideal;
} beir_query;

typedef struct beir {
    rr__arena   arena;
    beir_item  *doc; /* sorted by id */
    size_t      n_doc;
    beir_query *query;
    size_t      n_query;
} beir;

/* Queries without any relevant document are left out, as trec_eval does. limit 0 = all queries. */
rr_status beir_open(const char *dir, size_t limit, size_t max_candidates, beir *out, rr_error *err);
void      beir_close(beir *b);

/* Sum over the queries of nDCG@10; scores are those of all queries' documents, end to end. */
rr_status beir_ndcg10(const beir *b, const float *scores, double *sum, rr_error *err);

#endif
