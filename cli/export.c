/* export.c - rerank export: a model as ONNX, float or quantized by a calibration file. */
#include "cli.h"

#ifdef RR_WITH_ONNX
#include "onnx/onnx.h"
#include "quant/quant.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: rerank export -m DIR -o FILE.onnx [options]\n"
    "\n"
    "  -m, --model DIR       model directory (config.json, model.safetensors)\n"
    "  -o, --output FILE     where the ONNX file goes; weights above 1.8 GB go into FILE.data\n"
    "      --opset N         13 to 23 (default 17, fp8 19)\n"
    "      --precision P     fp32 (default), fp16, bf16, int8, fp8; the last two need "
    "--calibration\n"
    "      --calibration F   calibration file from rerank calibrate\n"
    "      --external        put the weights into FILE.data whatever their size\n"
    "      --all-outputs     make every layer's activations outputs (for comparing runtimes)\n"
    "      --name NAME       model name for the metadata (default: the directory)\n"
    "      --revision REV    model revision for the metadata\n"
    "\n"
    "Inputs input_ids, attention_mask (token_type_ids for BERT): int64 [batch_size,\n"
    "sequence_length]; output logits: float [batch_size, 1].\n";

typedef struct args {
    const char   *model, *output, *precision, *calibration;
    rr__onnx_opts o;
} args;

static int parse(int argc, char **argv, args *a) {
    for (int i = 1; i < argc; i++) {
        const char *f = argv[i], **text = NULL;
        const char *v = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(f, "--external") == 0)
            a->o.external = 1;
        else if (strcmp(f, "--all-outputs") == 0)
            a->o.all_outputs = 1;
        else if (strcmp(f, "-m") == 0 || strcmp(f, "--model") == 0)
            text = &a->model;
        else if (strcmp(f, "-o") == 0 || strcmp(f, "--output") == 0)
            text = &a->output;
        else if (strcmp(f, "--precision") == 0)
            text = &a->precision;
        else if (strcmp(f, "--calibration") == 0)
            text = &a->calibration;
        else if (strcmp(f, "--name") == 0)
            text = &a->o.name;
        else if (strcmp(f, "--revision") == 0)
            text = &a->o.revision;
        else if (strcmp(f, "--opset") == 0 && v) {
            char *end;
            long  n = strtol(v, &end, 10);

            if (*end || n < 1 || n > 1000) {
                fprintf(stderr, "rerank export: --opset \"%s\" is no number\n", v);
                return 0;
            }
            a->o.opset = (int32_t)n;
            i++;
        } else {
            fprintf(stderr, "rerank export: unexpected \"%s\"\n%s", f, help);
            return 0;
        }
        if (text && !v) {
            fprintf(stderr, "rerank export: %s needs a value\n", f);
            return 0;
        }
        if (text) {
            *text = v;
            i++;
        }
    }
    if (!a->model || !a->output) {
        fprintf(stderr, "rerank export: -m and -o are needed\n%s", help);
        return 0;
    }
    return 1;
}

static int set_precision(args *a) {
    static const struct {
        const char    *name;
        rr__dtype      dtype;
        rr__onnx_quant quant;
    } p[] = {{"fp32", RR__DT_F32, RR__ONNX_FLOAT},
             {"fp16", RR__DT_F16, RR__ONNX_FLOAT},
             {"bf16", RR__DT_BF16, RR__ONNX_FLOAT},
             {"int8", RR__DT_F32, RR__ONNX_INT8},
             {"fp8", RR__DT_F16, RR__ONNX_FP8}};
    const char *want = a->precision ? a->precision : "fp32";

    for (size_t i = 0; i < sizeof p / sizeof p[0]; i++)
        if (strcmp(p[i].name, want) == 0) {
            a->o.dtype = p[i].dtype;
            a->o.quant = p[i].quant;
            return 1;
        }
    fprintf(stderr, "rerank export: --precision \"%s\" is none of fp32, fp16, bf16, int8, fp8\n",
            want);
    return 0;
}

static void progress(void *user, uint64_t done, uint64_t total) {
    (void)user;
    fprintf(stderr, "\r%5.1f %% of %.1f MB%s", 100.0 * (double)done / (double)total,
            (double)total / 1e6, done == total ? "\n" : "");
}

/* The calibration's products as the exporter wants them; malloc'd. */
static rr__onnx_scale *scales(const rr__calibration *c) {
    rr__onnx_scale *s = calloc(c->n, sizeof *s);

    for (size_t i = 0; s && i < c->n; i++)
        s[i] = (rr__onnx_scale){c->product[i].name, c->product[i].amax, c->product[i].smooth,
                                c->product[i].keep_float};
    return s;
}

int cmd_export(int argc, char **argv) {
    args             a = {0};
    rr__model       *m = NULL;
    rr__calibration *cal = NULL;
    rr__onnx_scale  *scale = NULL;
    rr_error         err;
    rr_status        s;

    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return EXIT_OK;
        }
    if (!parse(argc, argv, &a) || !set_precision(&a))
        return EXIT_USAGE;
    s = rr__model_open(a.model, &m, &err);
    if (!s && a.calibration) {
        s = rr__calibration_read(a.calibration, &cal, &err);
        if (!s)
            s = rr__calibration_fits(cal, m, &err);
        if (!s && !(scale = scales(cal)))
            s = rr__fail(&err, RR_E_NOMEM, "%zu products", cal->n);
        if (!s) {
            a.o.scale = scale;
            a.o.n_scale = cal->n;
        }
    }
    if (!s)
        s = rr__onnx_export(m, &a.o, a.output, isatty(2) ? progress : NULL, NULL, &err);
    if (s)
        fprintf(stderr, "rerank export: %s\n", err.text);
    free(scale);
    rr__calibration_free(cal);
    rr__model_close(m);
    return s ? EXIT_FAILED : EXIT_OK;
}
#endif
