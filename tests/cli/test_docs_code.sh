#!/bin/bash
# Every program of docs/code compiles without a warning against rerank.h and runs on the embedded
# model, once with the static and once with the shared library; both print the same.
set -eu
cd "$(dirname "$0")/../.."
build=$(realpath "${BUILD:-build}")
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
ln -s "$build/librerank.so" "$tmp/librerank.so.0" # the name programs ask for
libs=$(make -s --eval 'print-libs: ; @echo $(LIB_LIBS) $(LDLIBS)' PYENV="${PYENV:-build/py}" print-libs)
for src in docs/code/*.c; do
    name=$(basename "$src" .c)
    warn="-std=c17 -Wall -Wextra -Wpedantic -Werror -Iinclude"
    ${CC:-gcc} $warn -o "$tmp/$name-static" "$src" "$build/librerank.a" -rdynamic $libs
    ${CC:-gcc} $warn -o "$tmp/$name-shared" "$src" -L"$build" -lrerank -Wl,-rpath,"$tmp" $libs
    "$tmp/$name-static" models/mini >"$tmp/a"
    "$tmp/$name-shared" models/mini >"$tmp/b"
    cmp "$tmp/a" "$tmp/b"
    echo "== $name" && cat "$tmp/a"
    case $name in
    rank) sort -r "$tmp/a" | head -n 1 | grep -q 'Paris' ;;
    jobs) [ "$(grep -c RR_OK "$tmp/a")" = 4 ] ;;
    tokens) grep -q 'pair: .* 12 kept' "$tmp/a" && grep -q '"Paris"' "$tmp/a" ;;
    errors)
        [ "$(awk '{ print $(NF - 2), $NF }' "$tmp/a" | paste -sd' ')" = \
            "RR_E_IO, 500 RR_E_ARG, 400 RR_E_TOO_LARGE, 413 RR_E_TIMEOUT, 504" ]
        ;;
    *) echo "no expectation for $name" && exit 1 ;;
    esac
    ! "$tmp/$name-static" /nonexistent 2>"$tmp/err" && grep -q RR_E_IO "$tmp/err"
done
