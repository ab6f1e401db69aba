/* check.c - rerank check FILE.onnx: what is wrong with it, by name. */
#include "cli.h"
#include "lines.h"
#include "options.h"

#ifdef RR_WITH_ONNX
#include "base/file.h"
#include "base/json_out.h"
#include "onnx/onnx.h"

#include <stdio.h>
#include <string.h>

typedef struct output {
    int          json;
    rr__json_out out;
} output;

static const char *const level_name[] = {"note", "warning", "fault"};

static void show(void *user, rr__onnx_level level, const char *text) {
    output *o = user;

    if (!o->json) {
        printf("%-8s %s\n", level_name[level], text);
        return;
    }
    rr__out_object(&o->out);
    rr__out_key(&o->out, "level");
    rr__out_cstr(&o->out, level_name[level]);
    rr__out_key(&o->out, "text");
    rr__out_cstr(&o->out, text);
    rr__out_end_object(&o->out);
}

static void summary_json(rr__json_out *o, const rr__onnx_report *r) {
    rr__out_end_array(o);
    rr__out_key(o, "ok");
    rr__out_bool(o, r->n_fault == 0);
    rr__out_key(o, "ir_version");
    rr__out_i64(o, r->ir_version);
    rr__out_key(o, "opset");
    rr__out_i64(o, r->opset);
    rr__out_key(o, "producer");
    rr__out_cstr(o, r->producer);
    rr__out_key(o, "nodes");
    rr__out_u64(o, r->n_node);
    rr__out_key(o, "initializers");
    rr__out_u64(o, r->n_initializer);
    rr__out_key(o, "weight_bytes");
    rr__out_u64(o, r->weight_bytes);
    rr__out_end_object(o);
    cli_put_json(stdout, o);
}

int cmd_check(int argc, char **argv) {
    output            o = {0};
    const cli_flag    flags[] = {{"json", 0, CLI_BOOL, &o.json, NULL, "findings as JSON", 0, 0}};
    const cli_command command = {
        "check",
        "[--json] FILE.onnx",
        "Checks structure, names, order, operators against the opset, types and shapes,\n"
        "initialisers and external data in bounds, and that batch and sequence are dynamic.",
        flags,
        1,
        NULL,
        "Exit status: 0 sound, 1 faults found or not an ONNX file, 2 wrong usage.\n"};
    const char     *path, *slash;
    char            dir[4096] = ".";
    rr__onnx_report r = {0};
    rr__file        file;
    cli_rest        rest;
    rr_error        err;
    rr_status       s;
    int             code = cli_parse(&command, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (rest.n != 1)
        return cli_fail("check", EXIT_USAGE, "one FILE.onnx is needed; see rerank check --help");
    path = rest.arg[0];
    slash = strrchr(path, '/');
    if (slash && slash > path && (size_t)(slash - path) < sizeof dir) {
        memcpy(dir, path, (size_t)(slash - path));
        dir[slash - path] = '\0';
    } else if (slash == path) {
        memcpy(dir, "/", 2);
    }
    if (o.json) {
        rr__out_object(&o.out);
        rr__out_key(&o.out, "findings");
        rr__out_array(&o.out);
    }
    s = rr__file_map(path, &file, &err);
    if (!s) {
        s = rr__onnx_check(file.ptr, file.size, dir, show, &o, &r, &err);
        if (s)
            rr__fail_prefix(&err, s, "%s", path);
        rr__file_unmap(&file);
    }
    if (s) {
        cli_fail("check", EXIT_FAILED, "%s", err.text);
    } else if (o.json) {
        summary_json(&o.out, &r);
    } else {
        printf("%s: opset %lld, ir_version %lld, %s\n", path, (long long)r.opset,
               (long long)r.ir_version, r.producer);
        printf(
            "%zu nodes (%zu outputs with inferred types), %zu initializers, %.1f MB of weights\n",
            r.n_node, r.n_inferred, r.n_initializer, (double)r.weight_bytes / 1e6);
        printf("%s: %zu faults, %zu warnings\n", r.n_fault ? "not sound" : "sound", r.n_fault,
               r.n_warning);
    }
    rr__out_free(&o.out);
    return s || r.n_fault ? EXIT_FAILED : EXIT_OK;
}
#endif
