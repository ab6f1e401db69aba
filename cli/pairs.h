/* pairs.h - streams of {"query", "document"} lines through an engine or a tokenizer.
 *
 * Lines are read in blocks; a few blocks are in flight so that the engine never waits for the
 * reader. Memory is bounded by blocks, not by the file. One JSON line a pair, in input order.
 *
 * A line that is no pair ends the run with its number, after all lines before it are answered; with
 * skip_bad it is answered by {"error": ...} in its place. */
#ifndef RR_CLI_PAIRS_H
#define RR_CLI_PAIRS_H

#include "options.h"

rr_status cli_pairs_score(const char *path, const cli_common *c, int raw, int skip_bad,
                          rr_error *err);
rr_status cli_pairs_tokenize(const char *path, const cli_common *c, int skip_bad, rr_error *err);

#endif
