/* module.h - parts of the library that are loaded at run time, so that one build starts on machines
 * without CUDA or TensorRT and says what is missing. */
#ifndef RR_BASE_MODULE_H
#define RR_BASE_MODULE_H

#include <stddef.h>

/* dlopen file from beside this library (or the executable it is linked into), from where `make
 * install` puts modules, or from the loader's path. NULL with the reason in why. */
void *rr__module_open(const char *file, char *why, size_t why_size);

#endif
