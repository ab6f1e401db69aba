/* module.c - see module.h. */
#define _GNU_SOURCE
#include "base/module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void *rr__module_open(const char *file, char *why, size_t why_size) {
    static const char *const places[] = {"", "rerank/", "../lib/rerank/"};
    enum { N_PLACE = sizeof places / sizeof places[0] };
    Dl_info     info;
    char        path[4096];
    const char *slash;
    void       *h;

    if (dladdr(places, &info) && info.dli_fname && (slash = strrchr(info.dli_fname, '/'))) {
        for (int i = 0; i < N_PLACE; i++) {
            int n = snprintf(path, sizeof path, "%.*s%s%s", (int)(slash - info.dli_fname + 1),
                             info.dli_fname, places[i], file);

            if (n < 0 || (size_t)n >= sizeof path || access(path, F_OK) != 0)
                continue;
            h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (!h) /* it is here but does not load: that reason is the one to tell */
                snprintf(why, why_size, "%s", dlerror());
            return h;
        }
    }
    h = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!h)
        snprintf(why, why_size, "%s", dlerror());
    return h;
}
