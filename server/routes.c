/* routes.c - which path speaks which dialect, and the kinds of problems. One line a path.
 *
 * Several systems use one path (/v1/rerank is Cohere's, Jina's and vLLM's), so such a path has a
 * dialect that serves all of them: rr__results on the versioned paths; rr__any, which also looks
 * whether the body is TEI's, on the rest. */
#include "server/info.h"
#include "server/request.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define GET(path, dialect, fn)                                                                     \
    { "GET", path, RR__OP_NOW, &dialect, fn, 0 }
#define OPEN(path, dialect, fn)                                                                    \
    { "GET", path, RR__OP_NOW, &dialect, fn, 1 }
#define WORK(path, dialect, fn)                                                                    \
    { "POST", path, RR__OP_WORK, &dialect, fn, 0 }
#define SCORE(path, dialect)                                                                       \
    { "POST", path, RR__OP_SCORE, &dialect, NULL, 0 }

const rr__route rr__routes[] = {
    SCORE("/rerank", rr__any),
    SCORE("/", rr__any),
    SCORE("/invocations", rr__any),
    SCORE("/v1/rerank", rr__results),
    SCORE("/v2/rerank", rr__results),
    SCORE("/score", rr__score),
    SCORE("/v1/score", rr__score),
    SCORE("/predict", rr__predict),
    WORK("/tokenize", rr__tei, rr__post_tokenize),
    WORK("/decode", rr__tei, rr__post_decode),
    GET("/info", rr__tei, rr__get_info),
    GET("/v1/models", rr__results, rr__get_models),
    OPEN("/", rr__any, rr__get_page),
    OPEN("/openapi.json", rr__any, rr__get_openapi),
    OPEN("/health", rr__tei, rr__get_health),
    OPEN("/ping", rr__tei, rr__get_health),
    OPEN("/ready", rr__tei, rr__get_ready),
    OPEN("/metrics", rr__tei, rr__get_metrics),
    OPEN("/v2/health/live", rr__kserve, rr__kserve_live),
    OPEN("/v2/health/ready", rr__kserve, rr__kserve_ready),
    GET("/v2", rr__kserve, rr__kserve_server),
    GET("/v2/models/*", rr__kserve, rr__kserve_model),
    GET("/v2/models/*/versions/*", rr__kserve, rr__kserve_model),
    GET("/v2/models/*/config", rr__kserve, rr__kserve_config),
    GET("/v2/models/*/versions/*/config", rr__kserve, rr__kserve_config),
    OPEN("/v2/models/*/ready", rr__kserve, rr__kserve_ready),
    OPEN("/v2/models/*/versions/*/ready", rr__kserve, rr__kserve_ready),
    SCORE("/v2/models/*/infer", rr__kserve),
    SCORE("/v2/models/*/versions/*/infer", rr__kserve),
    SCORE("/reranking", rr__llamacpp),
    SCORE("/v1/reranking", rr__llamacpp),
    SCORE("/v1/ranking", rr__nim),
    SCORE("/vertex", rr__vertex),
    SCORE("/voyage/v1/rerank", rr__voyage),
    SCORE("/infinity/rerank", rr__infinity),
    SCORE("/sglang/v1/rerank", rr__sglang),
};
const int rr__n_routes = sizeof rr__routes / sizeof rr__routes[0];

static int matches(const char *pattern, const char *path, rr_str segment[2]) {
    int n = 0;

    while (*pattern) {
        if (*pattern == '*') {
            size_t len = strcspn(path, "/");

            if (len == 0)
                return 0;
            segment[n++] = (rr_str){path, len};
            path += len;
            pattern++;
        } else if (*pattern++ != *path++) {
            return 0;
        }
    }
    return *path == '\0';
}

const rr__route *rr__route_find(const char *method, const char *path, rr_str segment[2],
                                rr__problem *problem) {
    int found = 0;

    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (int i = 0; i < rr__n_routes; i++)
        if (matches(rr__routes[i].path, path, segment)) {
            if (strcmp(method, rr__routes[i].method) == 0)
                return &rr__routes[i];
            found = 1;
        }
    *problem = found ? RR__P_METHOD : RR__P_NOT_FOUND;
    return NULL;
}

const char *rr__route_allow(const char *path) {
    static const char *const allow[] = {"OPTIONS", "GET, HEAD, OPTIONS", "POST, OPTIONS",
                                        "GET, HEAD, POST, OPTIONS"};
    rr_str                   segment[2];
    int                      which = 0;

    for (int i = 0; i < rr__n_routes; i++)
        if (matches(rr__routes[i].path, path, segment))
            which |= rr__routes[i].method[0] == 'G' ? 1 : 2;
    return allow[which];
}

/* ---- problems -------------------------------------------------------------------------------- */

static const struct {
    int         http;
    const char *tei, *openai;
} problems[] = {
#define ROW(name, http, tei, openai) {http, tei, openai},
    RR__PROBLEM_MAP(ROW)
#undef ROW
};

int rr__problem_http(rr__problem p) {
    return problems[p].http;
}
const char *rr__problem_tei(rr__problem p) {
    return problems[p].tei;
}
const char *rr__problem_openai(rr__problem p) {
    return problems[p].openai;
}

int rr__problem_set(rr__request *r, rr__problem p, const char *fmt, ...) {
    va_list args;

    if (r->problem == RR__P_NONE) { /* the first one is the reason of the others */
        r->problem = p;
        va_start(args, fmt);
        vsnprintf(r->text, sizeof r->text, fmt, args);
        va_end(args);
    }
    return 0;
}
