/* lines.h - text in, line by line, from a file or standard input, and progress on the way. */
#ifndef RR_CLI_LINES_H
#define RR_CLI_LINES_H

#include "base/arena.h"
#include "base/json_out.h"

#include <stdio.h>

typedef struct cli_lines {
    FILE       *file;
    const char *name; /* for messages: the path, or "standard input" */
    char       *buf;
    size_t      cap;
    uint64_t    line, bytes, total; /* total 0 = unknown */
    int         to_stdin;
} cli_lines;

/* "-" is standard input. */
rr_status cli_lines_open(cli_lines *l, const char *path, rr_error *err);
void      cli_lines_close(cli_lines *l);
/* The next line without its end; 1, 0 at the end of input, -1 after filling err. The bytes are
 * valid until the next call. Lines may hold NUL bytes. */
int cli_lines_next(cli_lines *l, rr_str *out, rr_error *err);

/* A progress line on stderr when that is a terminal: done of total (0 = unknown) and ETA. Prints at
 * most ten times a second; last = 1 ends the line. */
void cli_progress(const char *what, uint64_t done, uint64_t total, int last);

/* One JSON document and its line end to a stream; o is empty afterwards. */
void cli_put_json(FILE *to, rr__json_out *o);
/* Text between the tags of SVG and HTML; control characters as spaces. */
void cli_put_xml(FILE *to, rr_str s);

/* One record of a JSONL file: the fields that documents and pairs have, slices of line or arena. */
typedef struct cli_record {
    rr_str id, text, query, document; /* ptr NULL where the line lacks the field */
} cli_record;
rr_status cli_record_parse(rr_str line, rr__arena *arena, const char *name, cli_record *out,
                           rr_error *err);

/* Columns a UTF-8 text takes on a terminal, and how many bytes fit into columns. */
int    cli_width(rr_str s);
size_t cli_fit(rr_str s, int columns);
/* Print s in one line of exactly so many columns: control characters as spaces, cut with "…". */
void cli_print_cell(FILE *to, rr_str s, int columns);
/* A bar of share (0..1) of so many columns, in eighths of one. */
void cli_print_bar(FILE *to, float share, int columns);
/* Columns of the terminal, or 100. */
int cli_columns(void);

#endif
