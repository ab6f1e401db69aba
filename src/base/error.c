/* error.c - see error.h; also the public names of the statuses. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

rr_status rr__fail(rr_error *err, rr_status status, const char *fmt, ...) {
    va_list ap;

    if (!err)
        return status;
    err->status = status;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return status;
}

rr_status rr__fail_prefix(rr_error *err, rr_status status, const char *fmt, ...) {
    char    old[sizeof err->text];
    va_list ap;
    int     n;

    if (!err)
        return status;
    memcpy(old, err->text, sizeof old);
    err->status = status;
    va_start(ap, fmt);
    n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text - 1)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    return status;
}

const char *rr_version(void) {
    return RR_VERSION;
}

#define NAME_CASE(name, value, http, text)                                                         \
    case name:                                                                                     \
        return #name;
#define TEXT_CASE(name, value, http, text)                                                         \
    case name:                                                                                     \
        return text;
#define HTTP_CASE(name, value, http, text)                                                         \
    case name:                                                                                     \
        return http;

const char *rr_status_name(rr_status status) {
    switch (status) {
        RR_STATUS_MAP(NAME_CASE)
    case RR_STATUS_END:
        break;
    }
    return "RR_E_UNKNOWN";
}

const char *rr_status_text(rr_status status) {
    switch (status) {
        RR_STATUS_MAP(TEXT_CASE)
    case RR_STATUS_END:
        break;
    }
    return "unknown status";
}

int rr_status_http(rr_status status) {
    switch (status) {
        RR_STATUS_MAP(HTTP_CASE)
    case RR_STATUS_END:
        break;
    }
    return 500;
}
