/* check.c - rr__sched_check: does every instance still score the canary, and score it as at first?
 *
 * An instance that does not answer hangs, or has no processor to run on. The two are told apart by a
 * clock that runs as fast as this process may: while an answer is late, the checking thread computes for a few
 * milliseconds now and then, and time counts by the share of a core that it got. On a starved
 * machine that clock is slow and patience long; on an idle one it is the clock on the wall,
 * for a device that sleeps as for one that spins. */
#include "sched/inside.h"

#include <time.h>

enum {
    STEP_US = 1000000, /* how often the clock is looked at, at most ... */
    STEPS = 8,         /* ... and so many times in a timeout            */
    SAMPLE_US = 10000, /* computed to measure the share: more than a slice of the system's */
    BUSY_FACTOR = 8    /* a batch this many times over its prediction hangs */
};

/* The share of a core that a thread gets which wants one, now. */
static double core_share(int64_t sample_us) {
    int64_t         start = rr_now_us(), wall;
    struct timespec t, t0;
    double          used;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
    do {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        used = (double)(t.tv_sec - t0.tv_sec) * 1e6 + (double)(t.tv_nsec - t0.tv_nsec) / 1e3;
    } while (used < (double)sample_us);
    wall = rr_now_us() - start;
    return (double)wall > used ? used / (double)wall : 1;
}

static int all_answered(const rr__sched *s) {
    for (int32_t i = 0; i < s->n_runner; i++)
        if (s->runners[i].state == RUNNER_OK &&
            s->runners[i].check_done != s->runners[i].check_asked)
            return 0;
    return 1;
}

/* Wait for the answers until timeout_us have passed on the process's clock; returns how fast that
 * ran, in seconds a second. Lock held. */
static double await(rr__sched *s, int64_t timeout_us) {
    int64_t start = rr_now_us(), last = start;
    int64_t step = timeout_us / STEPS < STEP_US ? timeout_us / STEPS : STEP_US;
    double  spent = 0;

    while (!all_answered(s) && spent < (double)timeout_us) {
        int64_t until = last + step, now;
        double  share;

        while (!all_answered(s) && rr_now_us() < until)
            rr__timedwait(&s->changed, &s->lock, until);
        if (all_answered(s))
            break;
        pthread_mutex_unlock(&s->lock);
        share = core_share(step < SAMPLE_US ? step : SAMPLE_US);
        pthread_mutex_lock(&s->lock);
        now = rr_now_us();
        spent += share * (double)(now - last);
        last = now;
    }
    return last > start ? spent / (double)(last - start) : 1;
}

/* The instance has not answered in time. That is a hang, unless it is still within reason on a
 * batch that is known to be long. Lock held. */
static int hangs(const runner *r, int64_t timeout_us, double pace) {
    double allowed = r->running ? BUSY_FACTOR * r->running->pack.us : 0;

    if (allowed < (double)timeout_us)
        allowed = (double)timeout_us;
    return !r->running || pace * (double)(rr_now_us() - r->running->start_us) > allowed;
}

/* Give it no more work until its call returns. Lock held. */
static void fence(rr__sched *s, runner *r) {
    r->state = RUNNER_HUNG;
    r->abandoned = 1;
    if (r->next) {
        r->next->next = s->orphans;
        s->orphans = r->next;
        r->next = NULL;
    }
    rr__sched_wake_packer(s);
}

static rr_status check_runner(rr__sched *s, runner *r, int64_t timeout_us, double pace,
                              rr_error *err) {
    if (r->state == RUNNER_OK && r->check_done == r->check_asked) {
        if (r->error.status == RR_OK)
            return RR_OK;
        return rr__fail(err, RR_E_DEVICE, "%s", r->error.text);
    }
    if (r->state == RUNNER_OK && !hangs(r, timeout_us, pace))
        return RR_OK; /* busy; it answers when the batch is through */
    if (r->state == RUNNER_DOWN)
        return rr__fail(err, RR_E_DEVICE, "instance %d is down: %s", (int)r->index, r->error.text);
    if (r->state == RUNNER_OK)
        fence(s, r);
    return rr__fail(err, RR_E_DEVICE, "instance %d has not answered for %lld ms", (int)r->index,
                    (long long)(timeout_us / 1000));
}

rr_status rr__sched_check(rr__sched *s, int64_t timeout_us, rr_error *err) {
    rr_status status = RR_OK;
    double    pace;

    pthread_mutex_lock(&s->check_lock);
    pthread_mutex_lock(&s->lock);
    for (int32_t i = 0; i < s->n_runner; i++) {
        runner *r = &s->runners[i];

        if (r->state == RUNNER_OK && r->check_asked == r->check_done) {
            r->check_asked++;
            pthread_cond_signal(&r->wake);
        }
    }
    pace = await(s, timeout_us);
    for (int32_t i = 0; i < s->n_runner; i++) {
        rr_status one =
            check_runner(s, &s->runners[i], timeout_us, pace, status == RR_OK ? err : NULL);

        status = status == RR_OK ? one : status;
    }
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_unlock(&s->check_lock);
    return status;
}
