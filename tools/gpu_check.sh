#!/bin/bash
# gpu_check.sh [MODEL_DIR] - on a machine with a card: build, test, compute-sanitizer, bench, in one
# run of under ten minutes. PYTHON has torch and transformers. Prints one line a step, exits 1 if
# any fails; logs in $BUILD/gpu_check.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build} PYTHON=${PYTHON:-python3}
log=$BUILD/gpu_check model=${1:-$BUILD/random} bad=0
mkdir -p "$log"
export LD_LIBRARY_PATH="$PWD/$BUILD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
step() { # name command...
    local start=$SECONDS name=$1
    shift
    if "$@" >"$log/$name" 2>&1; then echo "✓ $name $((SECONDS - start)) s"; else
        echo "✗ $name: see $log/$name"; tail -n 5 "$log/$name"; bad=1; fi
}
# A program that reads past an array may still be right; the sanitizer says so. Graphs and a large
# batch run in it too; heads of 64 take Hopper's attention.
sanitize() { # tool model precisions
    compute-sanitizer --tool "$1" --error-exitcode 1 "$BUILD/gpu_engine" "$2" "$3" 1x128
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
step build make BUILD="$BUILD" models cuda "$BUILD/gpu_engine" "$BUILD/tests/backend/test_cuda" \
    "$BUILD/tests/backend/test_cuda_8bit" "$BUILD/tests/backend/test_cards" "$BUILD/tests/backend/test_backends"
step test_cuda "$BUILD/tests/backend/test_cuda" -j2 --timeout 120
step test_cuda_8bit "$BUILD/tests/backend/test_cuda_8bit" --timeout 120
step test_cards "$BUILD/tests/backend/test_cards"
step test_backends "$BUILD/tests/backend/test_backends" -j2 --timeout 120
step memcheck sanitize memcheck tests/data/tiny-xlmr fp16,bf16,fp8,int8,fp32
step initcheck sanitize initcheck tests/data/tiny-xlmr fp16,fp8
step racecheck sanitize racecheck tests/data/tiny-xlmr fp16,int8
step two_layers "$PYTHON" tools/random_model.py "$BUILD/random-2" --layers 2 --dtype float16 --pairs 0
step memcheck_64 sanitize memcheck "$BUILD/random-2" fp16,bf16,fp8
[ -e "$model/model.safetensors" ] ||
    step random_model "$PYTHON" tools/random_model.py "$model" --dtype float16 --pairs 24 --longest 8192
step engine "$BUILD/gpu_engine" "$model" fp32,fp16,bf16,fp8,int8 checks
grep -E 'truth|bits' "$log/engine"
step bench "$PYTHON" bench/gpu.py "$BUILD/gpu_engine" "$model"
grep '^|' "$log/bench"
exit $bad
