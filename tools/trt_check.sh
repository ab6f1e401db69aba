#!/bin/bash
# trt_check.sh LIBS [HEADERS] - on a machine with a card: TensorRT engines of the embedded model in fp32,
# fp16 and int8, built, run, held against exact scores, ranked and timed. LIBS holds TensorRT's or
# TensorRT-RTX's libraries. With HEADERS (a folder over include/NvInfer.h) the program and the module
# are built first; without, those of $BUILD run. No internet, no Python, under three minutes; logs and
# engines in $BUILD/trt_check. Exit status: 0 all well, 1 something fails, 77 no card or the library
# refuses it (what it said is printed).
cd "$(dirname "$0")/.." || exit 1
mkdir -p "${BUILD:=build}" && BUILD=$(cd "$BUILD" && pwd) || exit 1
libs=${1:?usage: tools/trt_check.sh LIBS [HEADERS]} headers=${2:-}
work=$BUILD/trt_check model=models/mini bad=0
mkdir -p "$work"
export RERANK_TRT_LIB=$libs LD_LIBRARY_PATH="$BUILD:$libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
rerank=$BUILD/rerank
say() { if [ "$1" = 0 ]; then echo "✓ $2"; else echo "✗ $2"; bad=1; fi; }
step() { # name command...: output into a log, the end of it shown on failure
    local start=$SECONDS name=$1
    shift
    if "$@" >"$work/$name" 2>&1; then say 0 "$name $((SECONDS - start)) s"; return 0; fi
    say 1 "$name: $*"
    tail -n 5 "$work/$name" | sed 's/^/    /'
    return 1
}
# Largest |difference| of two files of {"score": X} lines, and of how many.
error() { paste <(scores "$1") <(scores "$2") | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > m) m = d } END { printf "%.6f %d", m, NR }'; }
scores() { sed -n 's/.*"score":\([-+.0-9eE]*\).*/\1/p' "$1"; }
within() { awk -v e="$1" -v most="$2" 'BEGIN { exit !(e <= most) }'; }

if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader
else echo "no nvidia-smi here"; fi
if [ -n "$headers" ]; then
    step build make -j"$(nproc)" BUILD="$BUILD" TRT="$headers" models "$rerank" trt || exit 1
else
    step models make BUILD="$BUILD" models || exit 1
fi
[ -x "$rerank" ] && [ -e "$BUILD/librerank-trt.so" ] || { echo "✗ $BUILD lacks rerank or librerank-trt.so: give HEADERS"; exit 1; }

# Pairs of many lengths and languages: questions of the evaluation sets with the first words of passages.
for set in en zh ar th vi de; do
    paste -d'\t' <(sed -n '1,12s/.*"text": *"\(\([^"\\]\|\\.\)*\)".*/\1/p' "$model/eval/xquad-$set/queries.jsonl") \
        <(sed -n '1,12s/.*"text": *"\(\([^"\\]\|\\.\)*\)".*/\1/p' "$model/eval/xquad-$set/corpus.jsonl")
done | awk -F'\t' '$1 != "" && $2 != "" { printf "{\"query\": \"%s\", \"document\": \"%s\"}\n", $1, $2 }' >"$work/pairs.jsonl"
echo "  $(wc -l <"$work/pairs.jsonl") pairs"
# ref takes seconds a pair: it vouches for cpu at fp32 on the first few, cpu for the rest.
if "$rerank" info --backend cpu >/dev/null 2>&1; then
    step exact "$rerank" score --backend cpu --precision fp32 --raw --pairs "$work/pairs.jsonl" || exit 1
    head -n 3 "$work/pairs.jsonl" >"$work/few.jsonl"
    step ref "$rerank" score --backend ref --raw --pairs "$work/few.jsonl" || exit 1
    head -n 3 "$work/exact" >"$work/few"
    read -r d n < <(error "$work/ref" "$work/few")
    within "$d" 0.001; say $? "cpu at fp32 is $d from ref over $n pairs"
else
    head -n 12 "$work/pairs.jsonl" >"$work/few.jsonl" && mv "$work/few.jsonl" "$work/pairs.jsonl"
    step exact "$rerank" score --backend ref --raw --pairs "$work/pairs.jsonl" || exit 1
fi

built=()
for p in fp32 fp16 int8; do
    step "build_$p" "$rerank" build -m "$model" -o "$work/$p.plan" --precision "$p" --timing-cache "$work/timings" \
        --profile '1x1,1x128,1x512 1x1,8x128,16x512 1x1,100x180,100x512' || continue
    tail -n 1 "$work/build_$p" | sed 's/^/  /'
    built+=("$p")
done
[ ${#built[@]} -gt 0 ] || exit 1

first=$work/${built[0]}.plan
if ! "$rerank" info --engine "$first" >"$work/info" 2>&1; then
    echo "✗ the engine does not run here. What was said:"
    sed 's/^/    /' "$work/info"
    exit 77
fi
engines=()
for p in "${built[@]}"; do
    e=$work/$p.plan engines+=(--engine "$work/$p.plan")
    case $p in fp32) most=0.005 ;; fp16) most=0.05 ;; *) most=1.5 ;; esac
    "$rerank" info --engine "$e" 2>/dev/null | grep -A1 '^engine' | sed 's/^/  /'
    step "score_$p" "$rerank" score --engine "$e" --raw --pairs "$work/pairs.jsonl" || continue
    read -r d n < <(error "$work/exact" "$work/score_$p")
    within "$d" "$most"; say $? "$p: largest logit error $d over $n pairs (at most $most)"
    # Alone, each pair runs through another shape: how far may company move a score?
    head -n 3 "$work/pairs.jsonl" | while IFS= read -r line; do
        printf '%s\n' "$line" >"$work/one.jsonl"
        "$rerank" score --engine "$e" --raw --pairs "$work/one.jsonl"
    done >"$work/alone_$p" 2>&1
    head -n 3 "$work/score_$p" >"$work/together_$p"
    read -r d n < <(error "$work/alone_$p" "$work/together_$p")
    within "$d" "$most" && [ "$n" = 3 ]; say $? "$p: alone and in company differ by $d over $n pairs"
    step "eval_$p" "$rerank" eval "$model/eval/xquad-en" --queries 25 --candidates 20 --engine "$e" && tail -n 4 "$work/eval_$p" | sed 's/^/  /'
done
cp "$first" "$work/stale.plan" # a stale engine must not run
sed 's/"model_hash":"[0-9a-f]*"/"model_hash":"0123456789abcdef"/' "$first.json" >"$work/stale.plan.json"
! "$rerank" score --engine "$work/stale.plan" -q a b >"$work/stale" 2>&1 && grep -q 'made from other weights' "$work/stale"
say $? "an engine of other weights is refused"
rm -f "$work/stale.plan"
step table "$rerank" bench --table --docs 100 --repeat 20 --seconds 3 --eval "$model/eval/xquad-en" --queries 5 --candidates 20 "${engines[@]}" &&
    sed 's/^/  /' "$work/table"
for p in "${built[@]}"; do
    step "bench_$p" "$rerank" bench --engine "$work/$p.plan" --docs 100 --repeat 20 && tail -n 2 "$work/bench_$p" | sed 's/^/  /'
done
exit $bad
