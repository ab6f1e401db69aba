#!/bin/bash
# fuzz.sh DIR SECONDS [NAME] - run every DIR/fuzz_* (whose name contains NAME) that long, two at a
# time. A crash leaves its input in DIR/crash, is printed, and makes the exit status 1.
cd "$(dirname "$0")/.." || exit 1
dir=$1 seconds=$2 want=${3:-}
mkdir -p "$dir/log" "$dir/crash"

one() { # program
    local name=${1##*/fuzz_} log="$dir/log/${1##*/}"
    mkdir -p "$dir/corpus/$name" "fuzz/seeds/$name"
    if "$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$dir/crash/$name-" "$dir/corpus/$name" "fuzz/seeds/$name" >"$log" 2>&1; then
        echo "✓ $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs," \
            "$(find "fuzz/seeds/$name" -type f | wc -l) seeds," \
            "$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -n 1) edges"
    else
        echo "✗ $name"
        tail -n 40 "$log"
        return 1
    fi
}

failed=0
running=0
for program in "$dir"/fuzz_*; do
    [ -x "$program" ] && [[ ${program##*/} == *"$want"* ]] || continue
    [ $running -lt 2 ] || { wait -n || failed=1; running=$((running - 1)); }
    one "$program" &
    running=$((running + 1))
done
while [ $running -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit $failed
