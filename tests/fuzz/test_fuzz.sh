#!/bin/bash
# test_fuzz.sh - every fuzzer for 20 seconds.
cd "$(dirname "$0")/../.." || exit 1
if ! echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return !d && n; }' |
    clang -x c -fsanitize=fuzzer,address,undefined - -o /dev/null 2>/dev/null; then
    echo "skip: clang with libFuzzer is not installed (apt-get install clang libclang-rt-dev)"
    exit 77
fi
make --no-print-directory BUILD="${BUILD:-build}" PYENV="${PYENV:-build/py}" fuzz-ci
