/* list.c - which backends this build has, best first; the only file that asks.
 *
 * ref and cpu are linked in. cuda and trt are modules beside the library, loaded at run time, so
 * that one build starts on machines without their libraries and says what is missing. */
#define _GNU_SOURCE
#include "backend/backend.h"

#include "base/module.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

extern const rr__backend rr__backend_ref;
#ifdef RR_WITH_CPU
extern const rr__backend rr__backend_cpu;
#endif

/* A backend whose module did not load keeps its name and says why in probe. */
typedef struct module {
    const char        *name, *file, *symbol, *hint;
    const rr__backend *loaded;
    char               why[248];
} module;

static module modules[] = {
    {"cuda", "librerank-cuda.so", "rr__backend_cuda",
     "build with the CUDA toolkit's nvcc on PATH: `make cuda`", NULL, ""},
    {"trt", "librerank-trt.so", "rr__backend_trt",
     "build it with TensorRT's headers: `make tensorrt-headers && make trt`, or `make trt "
     "TRT=/path`",
     NULL, ""},
};
enum { N_MODULE = sizeof modules / sizeof modules[0] };
static pthread_once_t modules_once = PTHREAD_ONCE_INIT;

static void modules_load(void) {
    for (int i = 0; i < N_MODULE; i++) {
        module            *m = &modules[i];
        const rr__backend *b;
        void              *h = rr__module_open(m->file, m->why, sizeof m->why);

        if (!h)
            continue;
        b = dlsym(h, m->symbol);
        if (!b)
            snprintf(m->why, sizeof m->why, "%s lacks %s", m->file, m->symbol);
        else if (b->abi != RR__BACKEND_ABI)
            snprintf(m->why, sizeof m->why, "%s has interface %d, this build needs %d", m->file,
                     (int)b->abi, RR__BACKEND_ABI);
        else
            m->loaded = b;
    }
}

const rr__backend *rr__backend_at(int i) {
    const rr__backend *all[N_MODULE + 2];
    int                n = 0;

    pthread_once(&modules_once, modules_load);
    if (modules[0].loaded) /* trt needs a plan file, so it is never the default */
        all[n++] = modules[0].loaded;
#ifdef RR_WITH_CPU
    all[n++] = &rr__backend_cpu;
#endif
    all[n++] = &rr__backend_ref;
    if (modules[1].loaded)
        all[n++] = modules[1].loaded;
    return i >= 0 && i < n ? all[i] : NULL;
}

rr_status rr__backend_find(const char *name, const rr__backend **out, rr_error *err) {
    const rr__backend *b;

    for (int i = 0; (b = rr__backend_at(i)); i++) {
        if (name ? strcmp(name, b->name) == 0 : b->probe(NULL) == RR_OK) {
            rr_status s = name ? b->probe(err) : RR_OK;
            if (s == RR_OK)
                *out = b;
            return s;
        }
    }
    for (int i = 0; name && i < N_MODULE; i++)
        if (strcmp(name, modules[i].name) == 0)
            return rr__fail(err, RR_E_UNSUPPORTED, "backend %s is not here (%s); %s", name,
                            modules[i].why, modules[i].hint);
    return rr__fail(err, RR_E_ARG, "unknown backend \"%s\"; this build has: %s", name ? name : "",
                    rr_backends());
}

static char           names[128];
static pthread_once_t names_once = PTHREAD_ONCE_INIT;

static void names_join(void) {
    const rr__backend *b;
    size_t             n = 0;

    for (int i = 0; (b = rr__backend_at(i)) && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? "," : "", b->name);
}

const char *rr_backends(void) {
    pthread_once(&names_once, names_join);
    return names;
}

rr_status rr_backend_probe(const char *backend, rr_error *err) {
    const rr__backend *b;

    return rr__backend_find(backend, &b, err);
}
