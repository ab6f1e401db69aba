/* criterion.h - the few names of Criterion our tests use, for SAN=thread only: Criterion maps
 * memory where ThreadSanitizer keeps its shadow and stops at once. Each test runs in a child of its
 * own; the first failure, crash or race ends it. */
#ifndef TESTS_TSAN_CRITERION_H
#define TESTS_TSAN_CRITERION_H
#pragma GCC system_header

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct tsan_test {
    const char *name;
    void (*fn)(void);
    struct tsan_test *next;
} tsan_test;
static tsan_test *tsan_tests;

#define Test(suite, test, ...)                                                                     \
    static void                              suite##_##test(void);                                 \
    __attribute__((constructor)) static void suite##_##test##_add(void) {                          \
        static tsan_test t = {#suite "::" #test, suite##_##test, NULL};                            \
        t.next = tsan_tests;                                                                       \
        tsan_tests = &t;                                                                           \
    }                                                                                              \
    static void suite##_##test(void)

static void tsan_check(int ok, const char *what, const char *file, int line) {
    if (ok)
        return;
    fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
    _exit(1);
}

#define cr_assert(c, ...)              tsan_check(!!(c), #c, __FILE__, __LINE__)
#define cr_assert_eq(a, b, ...)        cr_assert((a) == (b))
#define cr_assert_neq(a, b, ...)       cr_assert((a) != (b))
#define cr_assert_lt(a, b, ...)        cr_assert((a) < (b))
#define cr_assert_leq(a, b, ...)       cr_assert((a) <= (b))
#define cr_assert_gt(a, b, ...)        cr_assert((a) > (b))
#define cr_assert_geq(a, b, ...)       cr_assert((a) >= (b))
#define cr_assert_null(p, ...)         cr_assert((p) == NULL)
#define cr_assert_not_null(p, ...)     cr_assert((p) != NULL)
#define cr_assert_not(c, ...)          cr_assert(!(c))
#define cr_assert_str_eq(a, b, ...)    cr_assert(strcmp(a, b) == 0)
#define cr_assert_arr_eq(a, b, n, ...) cr_assert(memcmp(a, b, n) == 0)
#define cr_assert_float_eq(a, b, eps, ...)                                                         \
    cr_assert(fabs((double)(a) - (double)(b)) <= (double)(eps))
#define cr_assert_fail(...) cr_assert(0)
#define cr_expect           cr_assert
#define cr_expect_eq        cr_assert_eq
#define cr_expect_neq       cr_assert_neq
#define cr_expect_null      cr_assert_null
#define cr_expect_lt        cr_assert_lt
#define cr_expect_leq       cr_assert_leq
#define cr_expect_gt        cr_assert_gt
#define cr_expect_geq       cr_assert_geq
#define cr_expect_float_eq  cr_assert_float_eq
#define cr_skip_test(...)   _exit(77)

const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "halt_on_error=1";
}

int main(void) {
    int tested = 0, passed = 0;

    for (tsan_test *t = tsan_tests; t; t = t->next) {
        int   status = 1;
        pid_t child = fork();

        if (child == 0) {
            alarm(300);
            t->fn();
            exit(0);
        }
        waitpid(child, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
            continue;
        tested++;
        if (status == 0)
            passed++;
        else
            fprintf(stderr, "[FAIL] %s\n", t->name);
    }
    fprintf(stderr, "[====] Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0\n",
            tested, passed, tested - passed);
    return passed != tested;
}

#endif
