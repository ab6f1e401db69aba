#!/bin/bash
# The C tests once more, instrumented: everything under AddressSanitizer and UndefinedBehavior-
# Sanitizer, what has threads under ThreadSanitizer. Slow backends are left to `make sanitize`.
cd "$(dirname "$0")/../.." || exit 1
log=$(mktemp) && trap 'rm -f "$log"' EXIT
run() { # sanitizer areas...
    local san=$1 area
    for area in "${@:2}"; do
        if ! make -s BUILD="build/san-$san" SAN="$san" TEST_TIMEOUT=300 run-tests T="tests/$area/test_" \
            >"$log" 2>&1; then
            echo "$san, $area:"
            tail -n 40 "$log"
            exit 1
        fi
        echo "$san $area: $(tail -n 1 "$log")"
    done
}
run address,undefined base model text onnx quant sched api
run thread base sched api
