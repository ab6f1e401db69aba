/* test_sched_piped.c - all of test_sched.c in front of a backend with start and finish, and what
 * only such a one has: the next batch starts while one runs. */
#define FAKE_PIPED 1
#include "sched/test_sched.c"

static void await_started(int n) {
    pthread_mutex_lock(&fake.lock);
    while (fake.started < n)
        pthread_cond_wait(&fake.changed, &fake.lock);
    pthread_mutex_unlock(&fake.lock);
}

Test(piped, the_next_batch_starts_while_one_runs_and_no_third) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *big, *small;

    FAKE_SET(closed, 1);
    big = fake_submit(s, 100, 100, 1); /* ten batches */
    await_started(2);
    small = fake_submit(s, 1, 10, 2);
    sleep_us(2000);
    cr_assert_eq(fake.started, 2);
    cr_assert_eq(fake.finished, 0);
    cr_assert_eq(stats_of(s).queued_docs, 81); /* what is started is committed, and no more */
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(small), RR_OK);
    cr_assert_eq(fake_wait(big), RR_OK);
    cr_assert_eq(fake.most_under_way, 2);
    fake_job_free(big);
    fake_job_free(small);
    rr__sched_close(s);
}

/* A batch's time is what it had the device for, not what it waited behind another. */
Test(piped, times_of_batches_do_not_overlap) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *j[20];
    int64_t        start, sum = 0;

    FAKE_SET(us_a_token, 2);
    start = rr_now_us();
    for (int i = 0; i < 20; i++)
        j[i] = fake_submit(s, 10, 100, 1); /* a batch each, 2 ms */
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(fake_wait(j[i]), RR_OK);
        cr_assert_geq(j[i]->work.timing.forward_us, 2000);
        sum += j[i]->work.timing.forward_us;
    }
    cr_assert_leq(sum, rr_now_us() - start);
    cr_assert_eq(fake.most_under_way, 2);
    for (int i = 0; i < 20; i++)
        fake_job_free(j[i]);
    rr__sched_close(s);
}

Test(piped, a_start_that_fails_fails_its_own_jobs) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *first, *hit_job, *after;
    int            opened = fake.opened;

    FAKE_SET(closed, 1);
    first = fake_submit(s, 10, 100, 1);
    fake_await_waiting(1);
    FAKE_SET(fail_start, 1);
    hit_job = fake_submit(s, 10, 100, 2);
    cr_assert_eq(fake_wait(hit_job), RR_E_DEVICE); /* while the first still runs */
    cr_assert(strstr(hit_job->work.error.text, "no start"));
    cr_assert_eq(fake_is_done(first), 0);
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(first), RR_OK);
    after = fake_submit(s, 10, 100, 3);
    cr_assert_eq(fake_wait(after), RR_OK);
    cr_assert_eq(fake.opened, opened + 1); /* a device that does not start is opened anew */
    fake_job_free(first);
    fake_job_free(hit_job);
    fake_job_free(after);
    rr__sched_close(s);
}

Test(piped, a_refused_batch_is_no_fault_of_the_device) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *first, *refused;
    int            opened = fake.opened;

    FAKE_SET(start_status, RR_E_ARG);
    FAKE_SET(fail_start, 1);
    refused = fake_submit(s, 10, 100, 1);
    cr_assert_eq(fake_wait(refused), RR_E_ARG);
    first = fake_submit(s, 10, 100, 2);
    cr_assert_eq(fake_wait(first), RR_OK);
    cr_assert_eq(fake.opened, opened);
    fake_job_free(refused);
    fake_job_free(first);
    rr__sched_close(s);
}

/* Both batches of a device that hangs fail, each once. */
Test(piped, a_hang_takes_what_is_behind_it) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *stuck, *behind, *after;

    FAKE_SET(closed, 1);
    stuck = fake_submit(s, 10, 100, 1);
    fake_await_waiting(1);
    behind = fake_submit(s, 10, 100, 2);
    await_started(2);
    while (rr__sched_check(s, 60000, NULL) == RR_OK)
        ;
    cr_assert_eq(fake_wait(stuck), RR_E_DEVICE);
    cr_assert_eq(fake_wait(behind), RR_E_DEVICE);
    FAKE_SET(closed, 0);
    while (stats_of(s).instances_ok < 1)
        sleep_us(2000);
    after = fake_submit(s, 10, 10, 3);
    cr_assert_eq(fake_wait(after), RR_OK);
    cr_assert_eq(fake_is_done(stuck) + fake_is_done(behind), 2); /* told once each */
    fake_job_free(stuck);
    fake_job_free(behind);
    fake_job_free(after);
    rr__sched_close(s);
}

/* A check waits for what is under way, and nothing starts before it is answered. */
Test(piped, a_check_has_the_instance_to_itself) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *j[50];

    FAKE_SET(us_a_token, 1);
    for (int i = 0; i < 50; i++)
        j[i] = fake_submit(s, 10, 100, 1);
    for (int i = 0; i < 20; i++) /* score aborts if something is under way */
        cr_assert_eq(rr__sched_check(s, 5000000, NULL), RR_OK);
    for (int i = 0; i < 50; i++) {
        cr_assert_eq(fake_wait(j[i]), RR_OK);
        fake_job_free(j[i]);
    }
    rr__sched_close(s);
}
