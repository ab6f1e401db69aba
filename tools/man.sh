#!/bin/sh
# man.sh RERANK - write the manual page rerank.1 from the program's own help, so that both say the same.
set -eu
rerank=$1
escape() { sed 's/\\/\\e/g; s/-/\\-/g; s/^\([.'\'']\)/\\\&\1/'; }
commands=$("$rerank" --help | awk '/^  [a-z]/ { print $1 }')

echo ".TH RERANK 1 \"\" \"rerank $("$rerank" --version | cut -d ' ' -f 2)\" \"User Commands\""
cat <<'M'
.SH NAME
rerank \- score how well documents answer a query, with a cross\-encoder
.SH SYNOPSIS
.B rerank
.I command
.RI [ options ]
.SH COMMANDS
.nf
M
"$rerank" --help | sed -n '/^  [a-z]/p' | escape
echo .fi
for c in $commands; do
    echo ".SH RERANK $(echo "$c" | tr a-z A-Z)"
    echo .nf
    "$rerank" "$c" --help | escape
    echo .fi
done
cat <<'M'
.SH ENVIRONMENT
.TP
.B RERANK_MODEL
The model directory where \-m is not given. Without both, the embedded model.
.TP
.B NO_COLOR
If set, no colours on a terminal.
.TP
.B COLUMNS
Width of tables.
.SH EXIT STATUS
0 done; 1 input, model or device failed, the message says which; 2 wrong usage.
M
