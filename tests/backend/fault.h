/* fault.h - make card 0 fault as a broken kernel would: one that traps is put on its context, behind
 * the engine's back. CUDA then refuses every call of the process, for every card (with two H100s, and
 * from PyTorch too), until the process ends. */
#ifndef RR_TEST_FAULT_H
#define RR_TEST_FAULT_H

#include <dlfcn.h>
#include <stddef.h>

/* The driver's answer to waiting for the kernel, 0 if it did not trap; -1 if it could not be put there. */
static int fault(void) {
    static const char trap[] = ".version 7.0\n.target sm_80\n.address_size 64\n"
                               ".visible .entry fault()\n{\ntrap;\n}\n";
    void             *lib = dlopen("libcuda.so.1", RTLD_NOW), *context, *module, *kernel;
    int               device = 0, answer = -1;
    int (*init)(unsigned);
    int (*get)(int *, int);
    int (*retain)(void **, int);
    int (*push)(void *);
    int (*load)(void **, const void *);
    int (*function)(void **, void *, const char *);
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                  void *, void **, void **);
    int (*wait)(void);
    int (*pop)(void **);

    if (!lib)
        return -1;
    *(void **)&init = dlsym(lib, "cuInit");
    *(void **)&get = dlsym(lib, "cuDeviceGet");
    *(void **)&retain = dlsym(lib, "cuDevicePrimaryCtxRetain");
    *(void **)&push = dlsym(lib, "cuCtxPushCurrent_v2");
    *(void **)&load = dlsym(lib, "cuModuleLoadData");
    *(void **)&function = dlsym(lib, "cuModuleGetFunction");
    *(void **)&launch = dlsym(lib, "cuLaunchKernel");
    *(void **)&wait = dlsym(lib, "cuCtxSynchronize");
    *(void **)&pop = dlsym(lib, "cuCtxPopCurrent_v2");
    if (!init || !get || !retain || !push || !load || !function || !launch || !wait || !pop)
        return -1;
    if (init(0) || get(&device, 0) || retain(&context, device) || push(context))
        return -1;
    if (!load(&module, trap) && !function(&kernel, module, "fault") &&
        !launch(kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL))
        answer = wait();
    pop(&context);
    return answer;
}

#endif
