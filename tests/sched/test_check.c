/* test_check.c - the canary on a starved machine: slow is not hung, and hung is. */
#include "sched/fake.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t fenced(rr__sched *s) {
    rr_stats st;

    rr__sched_stats(s, &st);
    return st.instances_fenced;
}

/* Processes that take all cores, in favour of which this one and its threads to come step back. */
static int starve(pid_t *hogs, int most) {
    int n = 0;

    for (; n < most && n < 2 * sysconf(_SC_NPROCESSORS_ONLN); n++) {
        hogs[n] = fork();
        if (hogs[n] == 0)
            for (pid_t parent = getppid(); getppid() == parent;)
                compute_us(10000);
    }
    cr_assert_eq(setpriority(PRIO_PROCESS, 0, 10), 0);
    return n;
}

Test(check, a_starved_machine_is_slow_and_a_hang_on_it_a_hang) {
    const int64_t  timeout = 100000;
    rr__sched_opts o = fake_opts();
    rr__sched     *s;
    rr_error       err = {0};
    pid_t          hogs[256];
    int            n = starve(hogs, 256);
    int64_t        start;
    fake_job      *slow, *stuck;

    s = fake_sched(&o);
    FAKE_SET(compute_us, 30000);
    slow = fake_submit(s, 3, 10, 1);
    start = rr_now_us();
    do /* one that does take longer than the timeout: the system owes nobody a slow start */
        cr_assert_eq(rr__sched_check(s, timeout, &err), RR_OK, "%s", err.text);
    while (rr_now_us() - start < 5 * timeout);
    cr_assert_eq(fenced(s), 0);
    FAKE_SET(compute_us, 0);
    cr_assert_eq(fake_wait(slow), RR_OK);
    FAKE_SET(closed, 1);
    stuck = fake_submit(s, 3, 10, 1);
    fake_await_waiting(1);
    while (rr__sched_check(s, timeout, NULL) == RR_OK) /* 8 times its prediction comes first */
        cr_assert(!fake_is_done(stuck));
    cr_assert_eq(fenced(s), 1);
    cr_assert_eq(fake_wait(stuck), RR_E_DEVICE);
    FAKE_SET(closed, 0);
    while (fenced(s))
        sleep_us(2000);
    while (n > 0) {
        kill(hogs[--n], SIGKILL);
        waitpid(hogs[n], NULL, 0);
    }
    fake_job_free(slow);
    fake_job_free(stuck);
    rr__sched_close(s);
}
