#!/bin/bash
# run.sh [NAME] - run every test whose path contains NAME: Criterion programs under $BUILD/tests,
# tests/*/test_*.py with pytest, tests/*/test_*.sh. Shell tests say "skip: reason" and exit 77.
# The last line is "N passed, N failed, N skipped"; the exit status says whether all is well.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build} PYENV=${PYENV:-build/py} want=${1:-}
export BUILD PYENV PATH="$PWD/$BUILD:$PATH" LD_LIBRARY_PATH="$PWD/$BUILD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" # modules
passed=0 failed=0 skipped=0 bad=()
log=$(mktemp) && trap 'rm -f "$log"' EXIT

count() { grep -oE "$1" "$log" | grep -oE '[0-9]+' | tail -n 1; }
add() { # name passed failed skipped seconds
    passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
    printf '%s %-44s %4d passed%s%s  %ss\n' "$([ "$3" = 0 ] && echo '✓' || echo '✗')" "$1" "$2" \
        "$([ "$3" = 0 ] || echo ", $3 failed")" "$([ "$4" = 0 ] || echo ", $4 skipped")" "$5"
    [ "$3" = 0 ] || { bad+=("$1"); cat "$log"; }
}

for src in tests/*/test_*.c; do
    [ -e "$src" ] && [[ $src == *"$want"* ]] || continue
    start=$SECONDS
    timeout 900 "$BUILD/${src%.c}" -j2 --timeout "${TEST_TIMEOUT:-120}" >"$log" 2>&1
    rc=$?
    n=$(count 'Tested: *[0-9]+') p=$(count 'Passing: *[0-9]+')
    s=$(grep -c 'skip: ' "$log") # Criterion leaves out what was skipped
    f=$((${n:-1} - ${p:-0}))
    [ $rc = 0 ] || [ $f -gt 0 ] || f=1
    grep -E 'skip: ' "$log"
    add "${src%.c}" "${p:-0}" "$f" "$s" $((SECONDS - start))
done
if [ -z "${SAN:-}" ]; then
    for src in tests/*/test_*.py; do
        [ -e "$src" ] && [[ $src == *"$want"* ]] || continue
        start=$SECONDS
        timeout 1800 "$PYENV/bin/python" -m pytest -q -rs -p no:cacheprovider "$src" >"$log" 2>&1
        rc=$?
        p=$(count '[0-9]+ passed') f=$(count '[0-9]+ (failed|error)') s=$(count '[0-9]+ skipped')
        [ $rc = 0 ] || [ "${f:-0}" -gt 0 ] || f=1
        grep -E '^SKIPPED' "$log"
        add "$src" "${p:-0}" "${f:-0}" "${s:-0}" $((SECONDS - start))
    done
    for src in tests/*/test_*.sh; do
        [ -e "$src" ] && [[ $src == *"$want"* ]] || continue
        start=$SECONDS
        timeout 1800 bash "$src" >"$log" 2>&1
        case $? in
        0) add "$src" 1 0 0 $((SECONDS - start)) ;;
        77) grep -E 'skip: ' "$log"; add "$src" 0 0 1 $((SECONDS - start)) ;;
        *) add "$src" 0 1 0 $((SECONDS - start)) ;;
        esac
    done
fi
[ ${#bad[@]} = 0 ] || echo "failed: ${bad[*]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
