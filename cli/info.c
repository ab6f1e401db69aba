/* info.c - rerank info: the model, what runs here and why not, memory. */
#include "cli.h"
#include "lines.h"
#include "options.h"

#include "base/json_out.h"
#include "base/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const all_backends[] = {"cuda", "trt", "cpu", "ref"};

typedef struct machine {
    char   cpu[128];
    double memory_gb, free_gb; /* 0 = unknown */
} machine;

/* "key : value" of a /proc file; the value, or "" */
static void proc_value(const char *path, const char *key, char *value, size_t cap) {
    FILE *f = fopen(path, "r");
    char  line[512];

    *value = '\0';
    while (f && !*value && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');

        if (!colon || strncmp(line, key, strlen(key)) != 0)
            continue;
        colon[strcspn(colon, "\n")] = '\0';
        colon++;
        snprintf(value, cap, "%s", colon + strspn(colon, " \t"));
    }
    if (f)
        fclose(f);
}

static machine look(void) {
    machine m;
    char    kb[128];

    proc_value("/proc/cpuinfo", "model name", m.cpu, sizeof m.cpu);
    proc_value("/proc/meminfo", "MemTotal", kb, sizeof kb);
    m.memory_gb = strtod(kb, NULL) * 1024e-9;
    proc_value("/proc/meminfo", "MemAvailable", kb, sizeof kb);
    m.free_gb = strtod(kb, NULL) * 1024e-9;
    return m;
}

static void backends_text(void) {
    printf("backends\n");
    for (int i = 0; i < 4; i++) {
        rr_error err = {0};

        if (rr_backend_probe(all_backends[i], &err) == RR_OK)
            printf("  ✓ %s\n", all_backends[i]);
        else
            printf("  ✗ %-5s %s\n", all_backends[i], err.text);
    }
}

static void text(const rr_model_info *m, const rr_engine_info *e) {
    machine here = look();

    printf("rerank %s\n\nmodel      %s\n", rr_version(), m->dir);
    printf("           %s, %d layers x %d, %d heads, %.1f M parameters, %s\n", m->architecture,
           (int)m->n_layer, (int)m->d_model, (int)m->n_head, (double)m->n_param / 1e6, m->dtype);
    printf("           %d pieces, at most %d tokens a pair, label %s\n", (int)m->vocab_size,
           (int)m->max_length, m->label);
    printf("engine     %s, %s: %s\n", e->backend, e->precision, e->device);
    printf("           weights %.1f MB, each instance %.1f MB more at %d tokens a batch\n",
           (double)e->weight_bytes / 1e6, (double)e->instance_bytes / 1e6,
           (int)e->max_batch_tokens);
    printf("machine    %s, %d cores, %.1f GB of memory, %.1f GB free\n\n",
           *here.cpu ? here.cpu : "CPU", rr__cores(), here.memory_gb, here.free_gb);
    backends_text();
}

static void json(const rr_model_info *m, const rr_engine_info *e) {
    rr__json_out o = {0};
    machine      here = look();

    rr__out_object(&o);
    rr__out_key(&o, "version");
    rr__out_cstr(&o, rr_version());
    rr__out_key(&o, "model");
    rr__out_object(&o);
    rr__out_key(&o, "dir");
    rr__out_cstr(&o, m->dir);
    rr__out_key(&o, "architecture");
    rr__out_cstr(&o, m->architecture);
    rr__out_key(&o, "dtype");
    rr__out_cstr(&o, m->dtype);
    rr__out_key(&o, "layers");
    rr__out_i64(&o, m->n_layer);
    rr__out_key(&o, "hidden_size");
    rr__out_i64(&o, m->d_model);
    rr__out_key(&o, "heads");
    rr__out_i64(&o, m->n_head);
    rr__out_key(&o, "vocab_size");
    rr__out_i64(&o, m->vocab_size);
    rr__out_key(&o, "max_length");
    rr__out_i64(&o, m->max_length);
    rr__out_key(&o, "parameters");
    rr__out_u64(&o, m->n_param);
    rr__out_end_object(&o);
    rr__out_key(&o, "engine");
    rr__out_object(&o);
    rr__out_key(&o, "backend");
    rr__out_cstr(&o, e->backend);
    rr__out_key(&o, "precision");
    rr__out_cstr(&o, e->precision);
    rr__out_key(&o, "device");
    rr__out_cstr(&o, e->device);
    rr__out_key(&o, "weight_bytes");
    rr__out_u64(&o, e->weight_bytes);
    rr__out_key(&o, "instance_bytes");
    rr__out_u64(&o, e->instance_bytes);
    rr__out_key(&o, "max_batch_tokens");
    rr__out_i64(&o, e->max_batch_tokens);
    rr__out_end_object(&o);
    rr__out_key(&o, "machine");
    rr__out_object(&o);
    rr__out_key(&o, "cpu");
    rr__out_cstr(&o, here.cpu);
    rr__out_key(&o, "cores");
    rr__out_i64(&o, rr__cores());
    rr__out_key(&o, "memory_gb");
    rr__out_f64(&o, here.memory_gb);
    rr__out_end_object(&o);
    rr__out_key(&o, "backends");
    rr__out_object(&o);
    for (int i = 0; i < 4; i++) {
        rr_error err = {0};

        rr__out_key(&o, all_backends[i]);
        if (rr_backend_probe(all_backends[i], &err) == RR_OK)
            rr__out_bool(&o, 1);
        else
            rr__out_cstr(&o, err.text);
    }
    rr__out_end_object(&o);
    rr__out_end_object(&o);
    cli_put_json(stdout, &o);
    rr__out_free(&o);
}

int cmd_info(int argc, char **argv) {
    int               as_json = 0;
    cli_common        common = {0};
    const cli_flag    flags[] = {{"json", 0, CLI_BOOL, &as_json, NULL, "one JSON document", 0, 0}};
    const cli_command c = {
        "info",
        "[options]",
        "Shows the model, the engine that would score with it, and every backend with the\n"
        "reason where it cannot run here.",
        flags,
        1,
        &common,
        "Exit status: 0 done, 1 no engine opens (the reason is given), 2 wrong usage.\n"};
    cli_rest       rest;
    rr_error       err = {0};
    rr_model      *model;
    rr_engine     *engine;
    rr_model_info  m;
    rr_engine_info e;
    int            code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (rest.n)
        return cli_fail("info", EXIT_USAGE, "unexpected \"%s\"", rest.arg[0]);
    if (cli_open(&common, &model, &engine, &err)) {
        if (!as_json)
            backends_text();
        return cli_fail("info", EXIT_FAILED, "%s", err.text);
    }
    rr_model_describe(model, &m);
    rr_engine_describe(engine, &e);
    if (as_json)
        json(&m, &e);
    else
        text(&m, &e);
    rr_engine_close(engine);
    rr_model_close(model);
    return cli_flush(&err) ? cli_fail("info", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
