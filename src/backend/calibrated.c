/* calibrated.c - which calibration a backend loads a model with. */
#include "backend/backend.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

rr_status rr__backend_takes_calibration(const rr__backend *b, rr__precision p, rr_error *err) {
    if (b->calibrated & 1u << p)
        return RR_OK;
    for (int i = 0; i < RR__N_PRECISION; i++)
        if (b->calibrated & 1u << i)
            return rr__fail(err, RR_E_ARG,
                            "%s: a calibration is for %s, not %s; use --precision %s", b->name,
                            rr__precision_name((rr__precision)i), rr__precision_name(p),
                            rr__precision_name((rr__precision)i));
    return rr__fail(err, RR_E_UNSUPPORTED,
                    "%s takes no calibration: its 8-bit scales are measured in each pass, follow "
                    "from the weights, or are in its engine",
                    b->name);
}

int rr__calibration_of_folder(const char *dir, rr__precision p, char *path, size_t size) {
    const int n = snprintf(path, size, "%s/calibration.%s.json", dir, rr__precision_name(p));

    return n > 0 && (size_t)n < size;
}

rr_status rr__backend_calibration(const rr__backend *b, rr__precision p, const rr__model *m,
                                  const char *path, rr__calibration **out, rr_error *err) {
    rr_status s;
    char      own[4096];

    *out = NULL;
    if (path && strcmp(path, "none") == 0)
        return RR_OK;
    s = rr__backend_takes_calibration(b, p, path ? err : NULL);
    if (s != RR_OK)
        return path ? s : RR_OK;
    if (!path) {
        if (!rr__calibration_of_folder(m->dir, p, own, sizeof own) || access(own, F_OK) != 0)
            return RR_OK;
        path = own;
    }
    s = rr__calibration_read(path, out, err);
    if (s == RR_OK && (*out)->format != (p == RR__FP8 ? RR__QUANT_FP8 : RR__QUANT_INT8))
        s = rr__fail(err, RR_E_ARG, "%s is a calibration for %s, not %s", path,
                     rr__quant_format_name((*out)->format), rr__precision_name(p));
    if (s == RR_OK)
        s = rr__calibration_fits(*out, m, err);
    if (s != RR_OK) {
        rr__calibration_free(*out);
        *out = NULL;
    }
    return s;
}
