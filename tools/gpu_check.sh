#!/bin/bash
# gpu_check.sh [MODEL_DIR] - on a machine with a card: build, test, compute-sanitizer, the evaluation
# sets, the server under load, bench, in one run of under ten minutes. PYTHON has torch, transformers and
# pytest. BUILT=1: what is in $BUILD, and the lab, was built elsewhere. ONLY=REGEX: steps of such names.
# Prints one line a step and a table at the end, exits 1 if any step fails; logs in $BUILD/gpu_check.
# Where there are two cards, tests and the load run on both, too.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build} PYTHON=${PYTHON:-python3}
log=$BUILD/gpu_check model=${1:-$BUILD/random} bad=0 table=
mkdir -p "$log" && rm -f "$log"/*
export LD_LIBRARY_PATH="$PWD/$BUILD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# What a log says in a line: of Criterion's tests how many passed, of a table its rows.
gist() {
    sed -nE 's/.*Synthesis: Tested: ([0-9]+) \| Passing: ([0-9]+) .*/\2 of \1 passed/p' "$1"
    sed -nE 's/^([0-9]+ (passed|skipped).*) in .*/\1/p' "$1"
    grep -c 'skip: ' "$1" | sed -E '/^0$/d; s/$/ skipped/'
    case $2 in eval | load*) grep -E '^\| [a-z0-9]' "$1" | grep -vE '^\| (precision|documents)' | tr -d '|' | tr -s ' ' ;; esac
}
step() { # name command...
    [[ $1 =~ ^(${ONLY:-.*})$ ]] || return 0
    local start=$SECONDS name=$1 mark=✓
    shift
    if ! "$@" >"$log/$name" 2>&1; then mark=✗ bad=1; fi
    echo "$mark $name $((SECONDS - start)) s"
    [ $mark = ✓ ] || { echo "  see $log/$name"; tail -n 5 "$log/$name"; }
    table+="| $mark $name | $(gist "$log/$name" "$name" | sed 's/^ *//; s/ *$//' | paste -sd ';' | sed 's/;/; /g') | $((SECONDS - start)) |"$'\n'
}
# A program that reads past an array may still be right; the sanitizer says so. Graphs and a large
# batch run in it too; heads of 64 take Hopper's attention.
sanitize() { # tool model precisions [fast]
    compute-sanitizer --tool "$1" --error-exitcode 1 "$BUILD/gpu_engine" "$2" "$3" 1x128 $4
}
# Requests of 1 and of 10 documents at 80 % of the rate the server saturates at, found in the same run.
load() { # precision devices
    "$PYTHON" bench/serve_equal.py --binary "$BUILD/rerank" --model "$model" --share 0.8 --seconds 5 -- \
        --backend cuda --precision "$1" --devices "$2"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
cards=$(nvidia-smi -L | wc -l)
[ -n "$BUILT" ] ||
    step build make -j"$(nproc)" BUILD="$BUILD" all "$BUILD"/gpu_engine "$BUILD"/lab/{attention,rows} \
        "$BUILD"/tests/backend/test_{cuda,cuda_8bit,cards,backends}
step test_cuda "$BUILD/tests/backend/test_cuda" -j2 --timeout 120
step test_cuda_8bit "$BUILD/tests/backend/test_cuda_8bit" --timeout 120
step test_cards "$BUILD/tests/backend/test_cards"
step test_backends "$BUILD/tests/backend/test_backends" -j2 --timeout 120
step renew env BUILD="$BUILD" "$PYTHON" -m pytest -q -rs -p no:cacheprovider tests/serve/test_engine.py -k faults
step lab_attention "$BUILD/lab/attention" check
step lab_rows "$BUILD/lab/rows" check
step memcheck sanitize memcheck tests/data/tiny-xlmr fp16,bf16,fp8,int8,fp32
step initcheck sanitize initcheck tests/data/tiny-xlmr fp16,fp8
step racecheck sanitize racecheck tests/data/tiny-xlmr fp16,int8
step two_layers "$PYTHON" tools/random_model.py "$BUILD/random-2" --layers 2 --dtype float16 --pairs 0
step memcheck_64 sanitize memcheck "$BUILD/random-2" fp16,bf16,fp8
step memcheck_fast sanitize memcheck "$BUILD/random-2" fp16,fp8 fast
step eval "$PYTHON" bench/eval_sets.py --binary "$BUILD/rerank" --queries 60 --candidates 50 --worst 0.5
[ -e "$model/model.safetensors" ] ||
    step random_model "$PYTHON" tools/random_model.py "$model" --dtype float16 --pairs 24 --longest 8192
step engine "$BUILD/gpu_engine" "$model" fp32,fp16,bf16,fp8,int8 checks
step engine_fast "$BUILD/gpu_engine" "$model" fp16,bf16,fp8 checks fast
step load_fp16 load fp16 0
step load_fp8 load fp8 0
[ "$cards" -lt 2 ] || step load_two_cards load fp16 0,1
step bench "$PYTHON" bench/gpu.py "$BUILD/gpu_engine" "$model"
cat "$log"/engine* 2>/dev/null | grep -E 'truth|bits'
for t in eval load_fp16 load_fp8 load_two_cards bench; do
    [ ! -e "$log/$t" ] || { echo; echo "$t"; grep '^|' "$log/$t"; }
done
[ $SECONDS -lt 600 ] || { echo "✗ $SECONDS s: this is to stay under ten minutes"; bad=1; }
printf '\n| step | what it says | s |\n|---|---|---|\n%s| all, %s card%s | | %s |\n' "$table" "$cards" \
    "$([ "$cards" = 1 ] || echo s)" "$SECONDS"
exit $bad
