/* fault.c - for LD_PRELOAD, a server whose card faults: as soon as the file $RERANK_TEST_FAULT exists, it
 * is removed and card 0 gets a kernel that traps. */
#define _DEFAULT_SOURCE
#include "../backend/fault.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *watch(void *path) {
    while (access(path, F_OK) != 0)
        usleep(20000);
    unlink(path);
    fprintf(stderr, "fault: %d\n", fault());
    return NULL;
}

__attribute__((constructor)) static void begin(void) {
    char     *path = getenv("RERANK_TEST_FAULT");
    pthread_t thread;

    if (path && pthread_create(&thread, NULL, watch, path) == 0)
        pthread_detach(thread);
}
