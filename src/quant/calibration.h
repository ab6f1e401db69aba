/* calibration.h - making an rr__calibration; shared by collect.c and file.c. */
#ifndef RR_QUANT_CALIBRATION_H
#define RR_QUANT_CALIBRATION_H

#include "quant/quant.h"

/* n products, zeroed; NULL when out of memory. */
rr__calibration *rr__calibration_new(size_t n);
/* A copy of v[n] that lives as long as c; NULL when out of memory. */
float *rr__calibration_floats(rr__calibration *c, const float *v, size_t n);

#endif
