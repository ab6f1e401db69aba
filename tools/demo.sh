#!/bin/bash
# demo.sh - rank the 100 first-stage (BM25) candidates of some questions with the embedded model.
# The questions are fixed; among them are ones that BM25 already answers and ones that it does not.
# `rerank eval models/mini/eval/*` gives the numbers over whole sets.
cd "$(dirname "$0")/.." || exit 1
sets=models/mini/eval
exec "${BUILD:-build}/rerank" demo "$@" $sets/squad-dev-12art:q3 $sets/squad-dev-12art:q30 \
    $sets/drcd-dev:q0 $sets/jaquad-dev:q16
