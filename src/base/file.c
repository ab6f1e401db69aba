/* file.c - see file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

rr_status rr__file_map(const char *path, rr__file *out, rr_error *err) {
    rr_status   s = RR_OK;
    struct stat st;
    void       *base = NULL;
    int         fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */

    if (fd < 0)
        return rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0) {
        s = rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        s = rr__fail(err, RR_E_IO, "%s: not a regular file", path);
        goto done;
    }
    if (st.st_size > 0) {
        base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (base == MAP_FAILED) {
            s = rr__fail(err, RR_E_IO, "%s: cannot map: %s", path, strerror(errno));
            goto done;
        }
    }
    *out = (rr__file){base, (size_t)st.st_size};
done:
    close(fd);
    return s;
}

void rr__file_unmap(rr__file *file) {
    if (file->ptr)
        munmap((void *)file->ptr, file->size);
    *file = (rr__file){NULL, 0};
}

rr_status rr__file_save(const char *path, const void *bytes, size_t size, rr_error *err) {
    char  part[4096 + 8];
    FILE *f;
    int   ok;

    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
        return rr__fail(err, RR_E_ARG, "%.80s...: the path is too long", path);
    f = fopen(part, "wb");
    ok = f && fwrite(bytes, 1, size, f) == size;
    ok = f && fclose(f) == 0 && ok && rename(part, path) == 0;
    if (ok)
        return RR_OK;
    rr__fail(err, RR_E_IO, "%s: %s", path, strerror(errno));
    if (f) /* else it is not ours */
        remove(part);
    return RR_E_IO;
}
