/* test_sched.c - the scheduler's threads, in front of a backend that does what the test says. Every
 * order of events is forced by the backend's gate; nothing here depends on how fast things run. */
#include "sched/fake.h"

#include "sched/inside.h"

static rr_stats stats_of(rr__sched *s) {
    rr_stats st;

    rr__sched_stats(s, &st);
    return st;
}

/* Wait until the packer has handed over all it can; the runner may have started it. */
static void await_next(rr__sched *s, int32_t runner_index) {
    for (int there = 0; !there; sleep_us(200)) {
        pthread_mutex_lock(&s->lock);
        there = s->runners[runner_index].next || s->runners[runner_index].behind;
        pthread_mutex_unlock(&s->lock);
    }
}

Test(sched, scores_come_back_to_their_jobs) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *j[40];
    rr_stats       st;

    for (int i = 0; i < 40; i++)
        j[i] = fake_submit(s, 1 + i * 7 % 50, 1 + i * 13 % 90, i + 1);
    for (int i = 0; i < 40; i++) {
        cr_assert_eq(fake_wait(j[i]), RR_OK);
        cr_assert_geq(j[i]->work.timing.batches, 1);
        cr_assert_geq(j[i]->work.timing.total_us, j[i]->work.timing.forward_us > 0);
        fake_job_free(j[i]);
    }
    st = stats_of(s);
    cr_assert_eq(st.jobs, 40);
    cr_assert_eq(st.total_us.count, 40);
    cr_assert_eq(st.batch_tokens.sum, st.tokens);
    cr_assert_eq(st.queued_tokens, 0);
    cr_assert_eq(st.queued_docs, 0);
    cr_assert_eq(st.instances_ok, 1);
    cr_assert(rr__sched_close(s));
}

/* A backend that pads gets batches of one length group; the scores find their way back all the same. */
Test(sched, length_groups_do_not_mix_up_results) {
    rr__sched_opts o = fake_opts();
    rr__backend    padded = fake_backend;
    rr__sched     *s;
    fake_job      *j[10];

    padded.padded = 1;
    o.backend = &padded;
    s = fake_sched(&o);
    for (int i = 0; i < 10; i++) {
        j[i] = fake_job_new(100, 120, i + 1);
        for (int k = 0; k < 100; k++) /* every length has its own sum of ids */
            j[i]->cu[k + 1] = j[i]->cu[k] + 1 + (k * 37 + i) % 120;
        cr_assert_eq(rr__sched_submit(s, &j[i]->work, NULL), RR_OK);
    }
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(fake_wait(j[i]), RR_OK);
        fake_job_free(j[i]);
    }
    cr_assert_eq(stats_of(s).queued_tokens, 0);
    rr__sched_close(s);
}

/* One batch on the device, one handed over, no more: and a job that comes then is in the very next
 * batch, two behind the one that was running. */
Test(sched, hand_over_is_one_deep_and_small_jobs_pass) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *big, *small;
    int            base;

    FAKE_SET(closed, 1);
    base = fake.n_log;
    big = fake_submit(s, 10000, 100, 1);
    fake_await_waiting(1);
    await_next(s, 0);
    cr_assert_eq(stats_of(s).queued_docs, 10000 - 20); /* two batches of 1,000 tokens */
    small = fake_submit(s, 10, 20, 2);
    sleep_us(2000);
    cr_assert_eq(stats_of(s).queued_docs, 10000 - 20 + 10);
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(small), RR_OK);
    cr_assert_eq(fake.log_first[base], 1);
    cr_assert_eq(fake.log_first[base + 1], 1);
    cr_assert_eq(fake.log_first[base + 2], 2);
    cr_assert_eq(small->work.timing.batches, 1);
    cr_assert_eq(fake_wait(big), RR_OK);
    fake_job_free(big);
    fake_job_free(small);
    rr__sched_close(s);
}

Test(sched, admits_all_or_nothing) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s;
    fake_job      *first, *fits, *more, *giant;
    rr_error       err = {0};
    rr_stats       st;

    o.max_queue_tokens = 5000;
    s = fake_sched(&o);
    FAKE_SET(closed, 1);
    first = fake_submit(s, 20, 100, 1); /* two batches leave the queue */
    fake_await_waiting(1);
    await_next(s, 0);
    fits = fake_submit(s, 40, 100, 1);
    more = fake_job_new(11, 100, 1);
    cr_assert_eq(rr__sched_submit(s, &more->work, &err), RR_E_BUSY);
    cr_assert(strstr(err.text, "5000"));
    cr_assert_eq(rr__sched_admits(s, 1001, NULL), RR_E_BUSY);
    cr_assert_eq(rr__sched_admits(s, 1000, NULL), RR_OK);
    giant = fake_job_new(51, 100, 1);
    cr_assert_eq(rr__sched_submit(s, &giant->work, &err), RR_E_TOO_LARGE);
    st = stats_of(s);
    cr_assert_eq(st.rejected_busy, 2);
    cr_assert_eq(st.queued_tokens, 4000);
    cr_assert_gt(rr__sched_backlog_us(s), 0);
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(first), RR_OK);
    cr_assert_eq(fake_wait(fits), RR_OK);
    cr_assert_eq(rr__sched_submit(s, &more->work, &err), RR_OK); /* there is room again */
    cr_assert_eq(fake_wait(more), RR_OK);
    cr_assert_eq(rr__sched_submit(s, &giant->work, &err), RR_E_TOO_LARGE); /* even when idle */
    fake_job_free(first);
    fake_job_free(fits);
    fake_job_free(more);
    fake_job_free(giant);
    rr__sched_close(s);
}

Test(sched, cancel_at_every_stage) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *running, *partly, *queued, *after;

    FAKE_SET(closed, 1);
    running = fake_submit(s, 10, 100, 1);
    fake_await_waiting(1);
    partly = fake_submit(s, 30, 100, 2);
    await_next(s, 0);
    queued = fake_submit(s, 50, 100, 3);
    rr__sched_cancel(s, &running->work); /* all of it is on the device: too late */
    rr__sched_cancel(s, &partly->work);
    rr__sched_cancel(s, &queued->work);
    cr_assert_eq(fake_wait(queued), RR_E_CANCELED); /* while the device still works */
    cr_assert_eq(fake_is_done(partly), 0);          /* a third of it is handed over */
    while (stats_of(s).queued_tokens > 0)           /* the rest of it is dropped all the same */
        sleep_us(200);
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(running), RR_OK);
    cr_assert_eq(fake_wait(partly), RR_E_CANCELED);
    after = fake_submit(s, 10, 10, 4);
    rr__sched_cancel(s, &queued->work); /* finished: without effect */
    cr_assert_eq(fake_wait(after), RR_OK);
    cr_assert_eq(stats_of(s).canceled, 2);
    fake_job_free(running);
    fake_job_free(partly);
    fake_job_free(queued);
    fake_job_free(after);
    rr__sched_close(s);
}

Test(sched, cancels_any_subset) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *first, *j[300];

    FAKE_SET(closed, 1);
    first = fake_submit(s, 20, 100, 1);
    fake_await_waiting(1);
    await_next(s, 0);
    for (int i = 0; i < 300; i++)
        j[i] = fake_submit(s, 1 + i * 17 % 23, 20, 2);
    for (int i = 0; i < 300; i++)
        if (i % 3)
            rr__sched_cancel(s, &j[i]->work);
    for (int i = 0; i < 300; i++)
        if (i % 3)
            cr_assert_eq(fake_wait(j[i]), RR_E_CANCELED);
    FAKE_SET(closed, 0);
    for (int i = 0; i < 300; i++) {
        cr_assert_eq(fake_wait(j[i]), i % 3 ? RR_E_CANCELED : RR_OK);
        fake_job_free(j[i]);
    }
    fake_wait(first);
    fake_job_free(first);
    rr__sched_close(s);
}

Test(sched, deadlines_refuse_and_expire) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s;
    fake_job      *j, *hopeless, *expires;
    rr_error       err = {0};
    int            n;

    fake.us_a_token = 20;
    o.probe_us = 50000;
    s = fake_sched(&o);
    FAKE_SET(us_a_token, 0);
    hopeless = fake_job_new(100, 100, 1); /* 200 ms by what was measured at open */
    hopeless->work.task.deadline_us = rr_now_us() + 50000;
    cr_assert_eq(rr__sched_submit(s, &hopeless->work, &err), RR_E_TIMEOUT);
    hopeless->work.task.deadline_us = rr_now_us() - 1;
    cr_assert_eq(rr__sched_submit(s, &hopeless->work, &err), RR_E_TIMEOUT);
    cr_assert_eq(stats_of(s).rejected_deadline, 2);

    FAKE_SET(closed, 1);
    j = fake_submit(s, 20, 100, 1);
    fake_await_waiting(1);
    await_next(s, 0);
    expires = fake_job_new(1, 5, 2);
    expires->work.task.deadline_us = rr_now_us() + 400000;
    cr_assert_eq(rr__sched_submit(s, &expires->work, &err), RR_OK, "%s", err.text);
    n = fake.n_log;
    cr_assert_eq(fake_wait(expires), RR_E_TIMEOUT); /* at its time, though the device is stuck */
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(j), RR_OK);
    for (; n < fake.n_log; n++)
        cr_assert_eq(fake.log_first[n], 1); /* it never reached the device */
    cr_assert_eq(stats_of(s).expired, 1);
    fake_job_free(j);
    fake_job_free(hopeless);
    fake_job_free(expires);
    rr__sched_close(s);
}

Test(sched, a_failed_batch_fails_its_own_jobs_only) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *hit_job, *big, *good;
    int            opened;

    FAKE_SET(closed, 1);
    opened = fake.opened;
    hit_job = fake_submit(s, 5, 100, 1);
    fake_await_waiting(1);
    good = fake_submit(s, 10, 100, 2);
    await_next(s, 0); /* packed before the fault: another try of the device runs it */
    FAKE_SET(fail, 1);
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(hit_job), RR_E_DEVICE);
    cr_assert(strstr(hit_job->work.error.text, "on fire"));
    cr_assert_eq(fake_wait(good), RR_OK);
    cr_assert_eq(fake.opened, opened + 1); /* opened anew */

    FAKE_SET(closed, 1);
    big = fake_submit(s, 100, 100, 3);
    fake_await_waiting(1);
    FAKE_SET(fail, 1);
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(big), RR_E_DEVICE); /* and with it what was still queued */
    fake_job_free(good);
    good = fake_submit(s, 10, 100, 4);
    cr_assert_eq(fake_wait(good), RR_OK);
    cr_assert_eq(stats_of(s).failed, 2);
    fake_job_free(hit_job);
    fake_job_free(big);
    fake_job_free(good);
    rr__sched_close(s);
}

Test(sched, a_dead_instance_is_fenced_and_the_rest_goes_on) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s;
    fake_job      *j;
    rr_status      st;

    o.n_device = 2;
    s = fake_sched(&o);
    FAKE_SET(only, 2);
    FAKE_SET(fail_open, 1 << 30);
    FAKE_SET(fail, 1 << 30);
    do { /* until the second instance has met its fate */
        j = fake_submit(s, 20, 100, 1);
        st = fake_wait(j);
        cr_assert(st == RR_OK || st == RR_E_DEVICE);
        fake_job_free(j);
    } while (st == RR_OK);
    for (int i = 0; i < 20; i++) {
        j = fake_submit(s, 20, 100, 1);
        cr_assert_eq(fake_wait(j), RR_OK);
        fake_job_free(j);
    }
    cr_assert_eq(stats_of(s).instances_fenced, 1);
    cr_assert_eq(rr__sched_check(s, 1000000, NULL), RR_E_DEVICE);
    FAKE_SET(fail, 0);
    FAKE_SET(fail_open, 0);
    while (stats_of(s).instances_ok < 2) /* it comes back by itself */
        sleep_us(5000);
    cr_assert_eq(rr__sched_check(s, 1000000, NULL), RR_OK);
    rr__sched_close(s);
}

Test(sched, without_an_instance_everything_fails_at_once_until_one_is_back) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *hit_job, *queued, *late;
    rr_error       err = {0};

    FAKE_SET(closed, 1);
    hit_job = fake_submit(s, 5, 100, 1);
    fake_await_waiting(1);
    queued = fake_submit(s, 100, 100, 1);
    FAKE_SET(fail, 1);
    FAKE_SET(fail_open, 3);
    FAKE_SET(closed, 0);
    cr_assert_eq(fake_wait(hit_job), RR_E_DEVICE);
    cr_assert_eq(fake_wait(queued), RR_E_DEVICE);
    late = fake_job_new(1, 10, 2);
    while (rr__sched_submit(s, &late->work, &err) != RR_OK) { /* refused until it is back */
        cr_assert_eq(err.status, RR_E_DEVICE);
        sleep_us(5000);
    }
    cr_assert_eq(fake_wait(late), RR_OK);
    fake_job_free(hit_job);
    fake_job_free(queued);
    fake_job_free(late);
    rr__sched_close(s);
}

Test(sched, a_hang_is_seen_fenced_and_survived) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s;
    fake_job      *stuck[2], *good;
    rr_error       err = {0};
    int            lost = 0;

    o.n_device = 2;
    s = fake_sched(&o);
    cr_assert_eq(rr__sched_check(s, 5000000, NULL), RR_OK);
    FAKE_SET(only, 1);
    FAKE_SET(closed, 1);
    stuck[0] = fake_submit(s, 64, 10, 1);
    stuck[1] = fake_submit(s, 64, 10, 2);
    fake_await_waiting(1);
    while (rr__sched_check(s, 60000, &err) == RR_OK)
        ;
    cr_assert(strstr(err.text, "instance 0 has not answered"), "%s", err.text);
    for (int i = 0; i < 2; i++) /* what hung has failed; the other device did the rest */
        lost += fake_wait(stuck[i]) == RR_E_DEVICE;
    cr_assert_geq(lost, 1);
    good = fake_submit(s, 100, 10, 3);
    cr_assert_eq(fake_wait(good), RR_OK);
    cr_assert_eq(stats_of(s).instances_fenced, 1);
    cr_assert_eq(rr__sched_check(s, 10000, NULL), RR_E_DEVICE);
    FAKE_SET(closed, 0); /* the call returns: the instance is opened anew and used again */
    while (stats_of(s).instances_ok < 2)
        sleep_us(2000);
    cr_assert_eq(rr__sched_check(s, 5000000, &err), RR_OK, "%s", err.text);
    cr_assert_eq(fake_is_done(stuck[0]) + fake_is_done(stuck[1]), 2);
    fake_job_free(stuck[0]);
    fake_job_free(stuck[1]);
    fake_job_free(good);
    rr__sched_close(s);
}

Test(sched, close_gives_up_on_a_device_known_to_hang) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *stuck;

    FAKE_SET(closed, 1);
    stuck = fake_submit(s, 10, 10, 1);
    fake_await_waiting(1);
    cr_assert_eq(rr__sched_check(s, 60000, NULL), RR_E_DEVICE);
    cr_assert_eq(fake_wait(stuck), RR_E_DEVICE);
    cr_assert_eq(rr__sched_close(s), 0);
    fake_job_free(stuck);
}

Test(sched, a_wrong_answer_is_seen) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    rr_error       err = {0};

    FAKE_SET(wrong, 0.25f);
    cr_assert_eq(rr__sched_check(s, 5000000, &err), RR_E_DEVICE);
    cr_assert(strstr(err.text, "28.25") && strstr(err.text, "28.000"), "%s", err.text);
    FAKE_SET(wrong, 0);
    while (stats_of(s).instances_ok < 1)
        sleep_us(2000);
    cr_assert_eq(rr__sched_check(s, 5000000, NULL), RR_OK);
    rr__sched_close(s);
}

Test(sched, a_score_that_is_no_number_is_an_error) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *j;

    FAKE_SET(wrong, (float)(1e308 * 10));
    j = fake_submit(s, 3, 10, 1);
    cr_assert_eq(fake_wait(j), RR_E_DEVICE);
    cr_assert(strstr(j->work.error.text, "finite"));
    fake_job_free(j);
    rr__sched_close(s);
}

Test(sched, open_reports_a_device_that_does_not_open) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = NULL;
    rr_error       err = {0};

    o.n_device = 2;
    FAKE_SET(only, 2);
    FAKE_SET(fail_open, 1);
    cr_assert_eq(rr__sched_open(&o, &s, &err), RR_E_DEVICE);
    cr_assert(strstr(err.text, "open fails"));
    cr_assert_null(s);
}

Test(sched, close_finishes_what_is_queued) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *j[30];

    FAKE_SET(us_a_token, 1);
    for (int i = 0; i < 30; i++)
        j[i] = fake_submit(s, 20, 50, i);
    cr_assert(rr__sched_close(s));
    for (int i = 0; i < 30; i++) {
        cr_assert_eq(fake_is_done(j[i]), 1);
        cr_assert_eq(fake_wait(j[i]), RR_OK);
        fake_job_free(j[i]);
    }
}

/* A job that submits the next one from its own done. */
typedef struct chain {
    fake_job   job; /* first */
    rr__sched *s;
    int        left;
} chain;

static void chain_done(rr__work *w) {
    chain *c = (chain *)w;

    if (--c->left > 0)
        cr_assert_eq(rr__sched_submit(c->s, w, NULL), RR_OK);
    else
        fake_done(w);
}

Test(sched, done_may_submit) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s = fake_sched(&o);
    fake_job      *model = fake_job_new(3, 10, 1);
    chain          c = {.job = *model, .s = s, .left = 200};

    c.job.work.done = chain_done;
    cr_assert_eq(rr__sched_submit(s, &c.job.work, NULL), RR_OK);
    cr_assert_eq(fake_wait(&c.job), RR_OK);
    cr_assert_eq(stats_of(s).jobs, 200);
    rr__sched_close(s);
    fake_job_free(model);
}

typedef struct client {
    rr__sched *s;
    unsigned   seed;
    int        ok, busy, canceled, failed, late;
} client;

static void *client_main(void *arg) {
    client *c = arg;

    for (int i = 0; i < 120; i++) {
        fake_job *j = fake_job_new(1 + rand_r(&c->seed) % 40, 1 + rand_r(&c->seed) % 60,
                                   1 + rand_r(&c->seed) % 9);
        rr_status st;

        j->work.task.priority = rand_r(&c->seed) % 3 - 1;
        if (rand_r(&c->seed) % 8 == 0)
            j->work.task.deadline_us = rr_now_us() + rand_r(&c->seed) % 3000;
        st = rr__sched_submit(c->s, &j->work, NULL);
        if (st == RR_OK) {
            if (rand_r(&c->seed) % 5 == 0)
                rr__sched_cancel(c->s, &j->work);
            st = fake_wait(j);
        }
        c->ok += st == RR_OK;
        c->busy += st == RR_E_BUSY;
        c->canceled += st == RR_E_CANCELED;
        c->late += st == RR_E_TIMEOUT;
        c->failed += st == RR_E_DEVICE;
        fake_job_free(j);
    }
    return NULL;
}

Test(sched, many_threads_with_everything_at_once) {
    rr__sched_opts o = fake_opts();
    rr__sched     *s;
    client         c[12];
    pthread_t      t[12];
    int            ok = 0, all = 0;
    rr_stats       st;

    o.n_device = 2;
    o.instances = 2;
    o.max_queue_tokens = 8000;
    s = fake_sched(&o);
    for (int i = 0; i < 12; i++) {
        c[i] = (client){.s = s, .seed = (unsigned)i + 1};
        pthread_create(&t[i], NULL, client_main, &c[i]);
    }
    for (int i = 0; i < 20; i++) {
        sleep_us(1000);
        FAKE_SET(fail, 1);
        rr__sched_check(s, 1000000, NULL);
    }
    for (int i = 0; i < 12; i++) {
        pthread_join(t[i], NULL);
        ok += c[i].ok;
        all += c[i].ok + c[i].busy + c[i].canceled + c[i].late + c[i].failed;
    }
    cr_assert_eq(all, 12 * 120);
    cr_assert_gt(ok, 0);
    st = stats_of(s);
    cr_assert_eq(st.queued_tokens, 0);
    cr_assert_eq(st.queued_docs, 0);
    cr_assert(rr__sched_close(s));
}
