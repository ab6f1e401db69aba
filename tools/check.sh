#!/bin/bash
# check.sh - what a reviewer should not have to look for: the include ladder, exported symbols, the
# public header alone, format, file length, static analysis. Prints one line a check; exits 1 if any
# fails. $BUILD holds a finished build.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build} CC=${CC:-gcc}
bad=0
say() { # status name detail
    if [ "$1" = 0 ]; then echo "✓ $2"; else echo "✗ $2"; printf '%s\n' "$3" | sed 's/^/    /'; bad=1; fi
}
sources=$(git ls-files 'include/*.h' 'src/*.[ch]' 'cli/*.[ch]' 'server/*.[ch]' 'tests/*.[ch]' 'fuzz/*.[ch]' 'bench/*.[ch]' 'docs/code/*.c')

ladder=$(tools/check_layers.sh $(git ls-files 'src/*.[ch]' 'src/*.cu' 'src/*.cuh' 'src/*.cpp' 'cli/*.[ch]' 'server/*.[ch]'))
say $? "include ladder" "$ladder"

# The shared library exports what rerank.h declares and nothing else; statics stay static.
declared=$(tr '\n' ' ' <include/rerank.h | grep -oE 'RR_API [^;]*;' | grep -oE 'rr_[a-z0-9_]+\(' | tr -d '(' | sort -u)
exported=$(nm -D --defined-only "$BUILD/librerank.so" | awk '{print $3}' | sort -u)
symbols=$(diff <(echo "$declared") <(echo "$exported") | grep '^[<>]' | sed 's/^</not exported:/; s/^>/not declared:/')
internal=$(nm --defined-only "$BUILD/librerank.a" 2>/dev/null | awk '$2 ~ /[TDBRV]/ && $3 !~ /^rr_/ {print "no rr_ prefix: " $3}' | sort -u)
say "$([ -z "$symbols$internal" ]; echo $?)" "exported symbols" "$symbols$internal"

header=$({ echo '#include "rerank.h"' | $CC -std=c17 -Wall -Wextra -Wpedantic -Werror -Iinclude -x c -fsyntax-only - &&
    echo '#include "rerank.h"' | ${CXX:-g++} -std=c++17 -Wall -Wextra -Wpedantic -Werror -Iinclude -x c++ -fsyntax-only -; } 2>&1)
say $? "header alone as C17 and C++17" "$header"

long=$(for f in $sources; do n=$(wc -l <"$f"); [ "$n" -le 1000 ] || echo "$f: $n lines"; done | grep -v '_tables\?\.')
say "$([ -z "$long" ]; echo $?)" "files under 1,000 lines" "$long"

banned=$(grep -nE '\b(strcpy|strcat|sprintf|gets|strtok|atoi|atof|alloca)[[:space:]]*\(' $sources | grep -v '/\*')
say "$([ -z "$banned" ]; echo $?)" "no banned functions" "$banned"

if command -v clang-format >/dev/null; then
    format=$(clang-format --dry-run -Werror $sources 2>&1 | grep -oE '^[^:]+' | sort | uniq -c)
    say "$([ -z "$format" ]; echo $?)" "format ($(clang-format --version | grep -oE '[0-9]+\.[0-9.]+' | head -n 1))" "$format"
else
    echo "- format: clang-format is not installed"
fi

if command -v cppcheck >/dev/null; then
    lint=$(cppcheck -q -j2 --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
        --suppressions-list=tools/cppcheck.txt -Iinclude -Isrc src server cli 2>&1)
    say $? "cppcheck" "$lint"
else
    echo "- cppcheck: not installed"
fi
exit $bad
