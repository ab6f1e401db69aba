/* export.c - rerank export: a model as ONNX, float or quantized by a calibration file. */
#include "cli.h"
#include "options.h"

#ifdef RR_WITH_ONNX
#include "lines.h"
#include "onnx_export.h"

#include "quant/quant.h"

#include <stdlib.h>
#include <string.h>

static const char summary[] =
    "Writes the model as ONNX. Inputs input_ids, attention_mask (token_type_ids for BERT): int64\n"
    "[batch_size, sequence_length]; output logits: float [batch_size, 1]. --precision is fp32\n"
    "(default), fp16, bf16, or int8 and fp8 as Q/DQ pairs, which need --calibration.";

static rr_status set_precision(const char *want, rr__onnx_opts *o, rr_error *err) {
    static const struct {
        const char    *name;
        rr__dtype      dtype;
        rr__onnx_quant quant;
    } p[] = {{"fp32", RR__DT_F32, RR__ONNX_FLOAT},
             {"fp16", RR__DT_F16, RR__ONNX_FLOAT},
             {"bf16", RR__DT_BF16, RR__ONNX_FLOAT},
             {"int8", RR__DT_F32, RR__ONNX_INT8},
             {"fp8", RR__DT_F16, RR__ONNX_FP8}};

    for (size_t i = 0; i < sizeof p / sizeof p[0]; i++)
        if (strcmp(p[i].name, want) == 0) {
            o->dtype = p[i].dtype;
            o->quant = p[i].quant;
            return RR_OK;
        }
    return rr__fail(err, RR_E_ARG, "ONNX has no precision \"%s\"; fp32, fp16, bf16, int8, fp8",
                    want);
}

static void progress(void *user, uint64_t done, uint64_t total) {
    (void)user;
    cli_progress("exporting", done, total, done == total);
}

/* The calibration's products as the exporter wants them; malloc'd. */
static rr__onnx_scale *scales(const rr__calibration *c) {
    rr__onnx_scale *s = calloc(c->n, sizeof *s);

    for (size_t i = 0; s && i < c->n; i++)
        s[i] = (rr__onnx_scale){c->product[i].name, c->product[i].amax, c->product[i].smooth,
                                c->product[i].keep_float};
    return s;
}

rr_status cli_onnx_export(const char *dir, const char *path, const char *precision,
                          const char *calibration, rr__onnx_opts o, char *hash, rr_error *err) {
    rr__model       *m = NULL;
    rr__calibration *cal = NULL;
    rr__onnx_scale  *scale = NULL;
    rr_status        s = set_precision(precision, &o, err);

    if (!s)
        s = rr__model_open(dir, &m, err);
    if (!s && calibration) {
        s = rr__calibration_read(calibration, &cal, err);
        if (!s)
            s = rr__calibration_fits(cal, m, err);
        if (!s && !(scale = scales(cal)))
            s = rr__fail(err, RR_E_NOMEM, "%zu products", cal->n);
        if (!s) {
            o.scale = scale;
            o.n_scale = cal->n;
        }
    }
    if (!s && hash)
        rr__model_hash(m, hash);
    if (!s)
        s = rr__onnx_export(m, &o, path, progress, NULL, err);
    free(scale);
    rr__calibration_free(cal);
    rr__model_close(m);
    return s;
}

int cmd_export(int argc, char **argv) {
    const char    *output = NULL;
    int64_t        opset = 0;
    cli_common     common = {0};
    rr__onnx_opts  o = {0};
    const cli_flag flags[] = {
        {"output", 'o', CLI_TEXT, &output, "FILE",
         "the ONNX file; above 1.8 GB weights go into FILE.data", 0, 0},
        {"opset", 0, CLI_INT, &opset, "N", "13 to 28 (default 17, fp8 19)", RR__ONNX_OPSET_MIN,
         RR__ONNX_OPSET_MAX},
        {"external", 0, CLI_BOOL, &o.external, NULL,
         "put the weights into FILE.data whatever their size", 0, 0},
        {"all-outputs", 0, CLI_BOOL, &o.all_outputs, NULL,
         "every activation an output (for compare)", 0, 0},
        {"name", 0, CLI_TEXT, &o.name, "NAME",
         "model name for the metadata (default the directory)", 0, 0},
        {"revision", 0, CLI_TEXT, &o.revision, "REV", "model revision for the metadata", 0, 0},
    };
    const cli_command c = {"export",
                           "-o FILE.onnx [options]",
                           summary,
                           flags,
                           sizeof flags / sizeof flags[0],
                           &common,
                           "Exit status: 0 written, 1 failed, 2 wrong usage.\n"};
    cli_rest          rest;
    rr_error          err = {0};
    rr_status         s;
    int               code = cli_parse(&c, argc, argv, &rest);

    if (code >= 0)
        return code;
    if (rest.n || !output)
        return cli_fail("export", EXIT_USAGE, "-o FILE is needed; see rerank export --help");
    o.opset = (int32_t)opset;
    s = cli_onnx_export(cli_model_dir(&common), output,
                        common.precision ? common.precision : "fp32", common.calibration, o, NULL,
                        &err);
    return s ? cli_fail("export", EXIT_FAILED, "%s", err.text) : EXIT_OK;
}
#endif
