/* test_file.c - a file is written whole or not at all, and read back as it was written. */
#include "base/file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Test(file, saves_whole_or_leaves_what_was) {
    char     dir[] = "/tmp/rr_file_XXXXXX", path[64], part[64];
    rr__file f = {NULL, 0};
    rr_error err = {0};

    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/x", dir);
    snprintf(part, sizeof part, "%s/x.part", dir);
    cr_assert_eq(rr__file_save(path, "ab\0c", 4, &err), RR_OK, "%s", err.text);
    cr_assert_neq(access(part, F_OK), 0);
    cr_assert_eq(rr__file_map(path, &f, &err), RR_OK, "%s", err.text);
    cr_assert_eq(f.size, 4);
    cr_assert_eq(memcmp(f.ptr, "ab\0c", 4), 0);
    rr__file_unmap(&f);

    /* A directory in the way of path.part: what was there stays. */
    cr_assert_eq(mkdir(part, 0700), 0);
    cr_assert_eq(rr__file_save(path, "new", 3, &err), RR_E_IO);
    cr_assert_not_null(strstr(err.text, path));
    cr_assert_eq(rr__file_map(path, &f, &err), RR_OK);
    cr_assert_eq(f.size, 4);
    rr__file_unmap(&f);
    cr_assert_eq(rmdir(part) | unlink(path) | rmdir(dir), 0);
}

Test(file, a_path_that_is_too_long_is_refused) {
    char     path[5000];
    rr_error err = {0};

    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    cr_assert_eq(rr__file_save(path, "", 0, &err), RR_E_ARG);
}
