#!/bin/bash
# Install into a scratch tree, move the tree, then build and run a consumer against it three ways:
# pkg-config shared, pkg-config static, CMake find_package. Each must print the same two scores.
set -eu
cd "$(dirname "$0")/../.."
tmp=$(mktemp -d) && trap 'rm -rf "$tmp"' EXIT
make -s install NVCC= PREFIX="$tmp/first" BUILD="${BUILD:-build}" PYENV="${PYENV:-build/py}" >/dev/null
cat >"$tmp/consumer.c" <<'C'
#include <rerank.h>
#include <stdio.h>
int main(int argc, char **argv) {
    rr_error   err;
    rr_model  *model = NULL;
    rr_engine *engine = NULL;
    rr_str     docs[] = {RR_STR("Paris is the capital of France."), RR_STR("The Seine is a river.")};
    float      s[2];
    if (argc < 2 || rr_model_open(argv[1], &model, &err) ||
        rr_engine_open(model, NULL, &engine, &err) ||
        rr_score(engine, RR_STR("capital of France"), docs, 2, s, &err)) {
        fprintf(stderr, "%s: %s\n", rr_status_name(err.status), err.text);
        return 1;
    }
    printf("%.6f %.6f\n", s[0], s[1]);
    rr_engine_close(engine);
    rr_model_close(model);
    return s[0] > s[1] ? 0 : 2;
}
C
model=$tmp/first/share/rerank/models/mini
want=
same() { # name command...
    local got
    got=$("${@:2}" "$model") || { echo "$1: failed"; exit 1; }
    echo "$1: $got"
    [ -z "$want" ] || [ "$got" = "$want" ] || { echo "expected $want"; exit 1; }
    want=$got
}
export PKG_CONFIG_PATH=$tmp/first/lib/pkgconfig
gcc -o "$tmp/shared" "$tmp/consumer.c" $(pkg-config --cflags --libs rerank) -Wl,-rpath,"$tmp/first/lib"
same "pkg-config shared" "$tmp/shared"
gcc -o "$tmp/static" "$tmp/consumer.c" $(pkg-config --cflags rerank) "$tmp/first/lib/librerank.a" \
    $(pkg-config --static --libs-only-L --libs-only-l --libs-only-other rerank | sed 's/-lrerank//')
same "pkg-config static" "$tmp/static"
mkdir "$tmp/cmake"
cat >"$tmp/cmake/CMakeLists.txt" <<'C'
cmake_minimum_required(VERSION 3.18)
project(consumer C)
find_package(rerank 0.1 REQUIRED)
add_executable(consumer ../consumer.c)
target_link_libraries(consumer rerank::rerank)
add_executable(consumer_static ../consumer.c)
target_link_libraries(consumer_static rerank::static)
C
cmake -S "$tmp/cmake" -B "$tmp/cmake/build" -DCMAKE_PREFIX_PATH="$tmp/first" >/dev/null
cmake --build "$tmp/cmake/build" >/dev/null
same "CMake shared" "$tmp/cmake/build/consumer"
same "CMake static" "$tmp/cmake/build/consumer_static"
mv "$tmp/first" "$tmp/second" && model=$tmp/second/share/rerank/models/mini
"$tmp/second/bin/rerank" info >/dev/null && echo "the moved tree still runs"
