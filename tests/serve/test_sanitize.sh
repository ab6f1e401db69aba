#!/bin/bash
# The server's own tests once more, under AddressSanitizer with UndefinedBehaviorSanitizer and under
# ThreadSanitizer, and a mixed load on it over the real engine; serving.py fails a test whose server a
# sanitizer had something to say about.
cd "$(dirname "$0")/../.." || exit 1
for san in address,undefined thread; do
    make -s BUILD="build/san-$san" SAN="$san" "build/san-$san/serve-null" "build/san-$san/rerank" || exit 1
    BUILD="build/san-$san" "${PYENV:-build/py}/bin/python" -m pytest -q -p no:cacheprovider tests/serve/test_http.py \
        || exit 1
    "${PYENV:-build/py}/bin/python" bench/serve_soak.py --binary "build/san-$san/rerank" --seconds 8 --growth 1000 \
        || exit 1
done
