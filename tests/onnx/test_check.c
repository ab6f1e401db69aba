/* The ONNX checker: a sound graph passes, each planted fault is named. Graphs are made with the
 * exporter's own builder, spoilt, packed, and read back as bytes. */
#include "onnx/graph.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct findings {
    char   text[4096];
    size_t n_fault, n_warning;
} findings;

static void collect(void *user, rr__onnx_level level, const char *text) {
    findings *f = user;
    size_t    n = strlen(f->text);

    f->n_fault += level == RR__ONNX_FAULT;
    f->n_warning += level == RR__ONNX_WARNING;
    snprintf(f->text + n, sizeof f->text - n, "%s\n", text);
}

static const int64_t     shape_ids[] = {-1, -1}, shape_w[] = {7, 4}, shape_out[] = {-1, -1, 2};
static const char *const axes[] = {"batch_size", "sequence_length", NULL};

/* ids -> Gather(table [7, 4]) -> MatMul(w [4, 2]) -> Softmax -> out */
static void build(rr__graph *g, int32_t opset) {
    float       table[28], w[8];
    rr__weight *t;

    for (int i = 0; i < 28; i++)
        table[i] = (float)i;
    for (int i = 0; i < 8; i++)
        w[i] = (float)i;
    rr__graph_init(g, opset, "test");
    rr__graph_input(g, "ids", ONNX_INT64, 2, shape_ids, axes);
    t = rr__graph_weight(g, "table", ONNX_FLOAT, 2, shape_w);
    t->tensor->has_raw_data = 1;
    t->tensor->raw_data.data = rr__arena_alloc(&g->arena, sizeof table);
    t->tensor->raw_data.len = sizeof table;
    memcpy(t->tensor->raw_data.data, table, sizeof table);
    rr__graph_op(g, "Gather", "rows", "table", "ids");
    rr__graph_floats(g, "flat", ONNX_FLOAT, w, 8, 1);
    rr__graph_ints(g, "w_shape", (const int64_t[]){4, 2}, 2, 1);
    rr__graph_op(g, "Reshape", "w", "flat", "w_shape");
    rr__graph_op(g, "MatMul", "scores", "rows", "w");
    rr__graph_op(g, "Softmax", "out", "scores");
    rr__graph_attr_int(g, "axis", -1);
    rr__graph_output(g, "out", ONNX_FLOAT, 3, shape_out, axes);
}

static rr_status check_bytes(const void *bytes, size_t n, const char *dir, findings *f) {
    rr_error err;

    memset(f, 0, sizeof *f);
    return rr__onnx_check(bytes, n, dir, collect, f, NULL, &err);
}

static void check(rr__graph *g, findings *f) {
    size_t   n = rr__onnx__model__get_packed_size(&g->model);
    uint8_t *bytes = malloc(n);

    cr_assert_eq(g->status, RR_OK);
    rr__onnx__model__pack(&g->model, bytes);
    cr_assert_eq(check_bytes(bytes, n, NULL, f), RR_OK);
    free(bytes);
    rr__graph_free(g);
}

static void expect_fault(rr__graph *g, const char *needle) {
    findings f;

    check(g, &f);
    cr_assert_gt(f.n_fault, 0, "no fault found, expected: %s", needle);
    cr_assert(strstr(f.text, needle), "expected \"%s\" in:\n%s", needle, f.text);
}

Test(check, a_sound_graph_passes_at_every_opset) {
    for (int32_t opset = RR__ONNX_OPSET_MIN; opset <= RR__ONNX_OPSET_MAX; opset++) {
        rr__graph g;
        findings  f;

        build(&g, opset);
        check(&g, &f);
        cr_assert_eq(f.n_fault + f.n_warning, 0, "opset %d:\n%s", (int)opset, f.text);
    }
}

Test(check, order) {
    rr__graph     g;
    RrOnnx__Node *first;

    build(&g, 17);
    first = g.graph.node[0];
    g.graph.node[0] = g.graph.node[2];
    g.graph.node[2] = first;
    expect_fault(&g, "input \"rows\" is defined by nothing before this node");
}

Test(check, names_defined_twice) {
    rr__graph g;

    build(&g, 17);
    rr__graph_op(&g, "Softmax", "scores", "rows");
    expect_fault(&g, "output \"scores\" is defined a second time");
}

Test(check, shapes) {
    rr__graph g;

    build(&g, 17);
    g.graph.node[2]->input[0] = "table_t";
    rr__graph_op(&g, "Transpose", "table_t", "table");
    { /* move it before its use */
        RrOnnx__Node *last = g.graph.node[g.graph.n_node - 1];
        memmove(g.graph.node + 1, g.graph.node, (g.graph.n_node - 1) * sizeof *g.graph.node);
        g.graph.node[0] = last;
    }
    expect_fault(&g, "inner dimensions: 7 against 4");
}

Test(check, types) {
    rr__graph g;

    build(&g, 17);
    rr__graph_op(&g, "Add", "mixed", "ids", "flat");
    expect_fault(&g, "\"ids\" is INT64, \"flat\" is FLOAT");
}

Test(check, operators_against_the_opset) {
    rr__graph g;

    build(&g, 17);
    rr__graph_op(&g, "Gelu", "late", "scores");
    expect_fault(&g, "newer than opset 17");
    build(&g, 17);
    rr__graph_op(&g, "Gelo", "none", "scores");
    expect_fault(&g, "ONNX has no operator of this name");
    build(&g, 18);
    rr__graph_op(&g, "ReduceMean", "mean", "scores");
    rr__graph_attr_ints(&g, "axes", (const int64_t[]){-1}, 1);
    expect_fault(&g, "ReduceMean-18 has no attribute \"axes\"");
    build(&g, 17);
    rr__graph_op(&g, "Cast", "cast", "scores");
    expect_fault(&g, "Cast-13 needs attribute \"to\"");
    build(&g, 17);
    rr__graph_op(&g, "MatMul", "alone", "rows");
    expect_fault(&g, "1 inputs; MatMul-13 takes 2 to 2");
}

Test(check, types_against_the_opset) {
    const float one = 1;

    for (int32_t opset = 13; opset <= 17; opset += 4) { /* Where takes bf16 from 16 on */
        rr__graph g;

        build(&g, opset);
        rr__graph_floats(&g, "one", ONNX_BFLOAT16, &one, 1, 0);
        rr__graph_op(&g, "Cast", "which", "ids");
        rr__graph_attr_int(&g, "to", ONNX_BOOL);
        rr__graph_op(&g, "Where", "chosen", "which", "one", "one");
        if (opset < 16) {
            expect_fault(&g, "\"one\" is BFLOAT16, which Where-9 does not take here");
        } else {
            findings f;

            check(&g, &f);
            cr_assert_eq(f.n_fault, 0, "%s", f.text);
        }
    }
    {
        rr__graph g;

        build(&g, 17);
        rr__graph_op(&g, "Sqrt", "root", "ids");
        expect_fault(&g, "\"ids\" is INT64, which Sqrt-13 does not take here");
    }
}

Test(check, initializers_in_bounds) {
    rr__graph g;

    build(&g, 17);
    g.graph.initializer[0]->raw_data.len = 100;
    expect_fault(&g, "has 100 bytes, its shape and type need 112");
    build(&g, 17);
    g.graph.initializer[0]->dims[0] = INT64_MAX / 2;
    expect_fault(&g, "dimension 0 is");
    build(&g, 17);
    g.graph.initializer[0]->dims[1] = -4;
    expect_fault(&g, "dimension 1 is -4");
    build(&g, 17);
    g.graph.initializer[0]->data_type = 99;
    expect_fault(&g, "element type 99, which is none");
}

Test(check, outputs) {
    rr__graph g;

    build(&g, 17);
    rr__graph_output(&g, "nothing", ONNX_FLOAT, 3, shape_out, axes);
    expect_fault(&g, "output \"nothing\" is computed by no node");
    build(&g, 17);
    rr__graph_output(&g, "scores", ONNX_FLOAT, 3, (const int64_t[]){-1, -1, 5}, axes);
    expect_fault(&g, "dimension 2 is declared 5 and computed 2");
    build(&g, 17);
    rr__graph_output(&g, "scores", ONNX_FLOAT16, 3, shape_out, axes);
    expect_fault(&g, "declared FLOAT16 and computed as FLOAT");
}

Test(check, static_axes_are_a_warning) {
    rr__graph g;
    findings  f;

    build(&g, 17);
    rr__graph_input(&g, "fixed", ONNX_INT64, 2, (const int64_t[]){1, 128}, axes);
    check(&g, &f);
    cr_assert_eq(f.n_fault, 0);
    cr_assert(strstr(f.text, "\"fixed\" has 0 dynamic axes"), "%s", f.text);
}

static void external(rr__graph *g, const char *location, const char *offset) {
    RrOnnx__Tensor *t = g->graph.initializer[0];
    RrOnnx__Pair   *p[2];

    for (int i = 0; i < 2; i++) {
        p[i] = rr__arena_alloc(&g->arena, sizeof *p[i]);
        rr__onnx__pair__init(p[i]);
        p[i]->key = i ? "offset" : "location";
        p[i]->value = (char *)(i ? offset : location);
    }
    t->has_raw_data = 0;
    t->has_data_location = 1;
    t->data_location = 1;
    t->external_data = rr__arena_alloc(&g->arena, sizeof p);
    memcpy(t->external_data, p, sizeof p);
    t->n_external_data = 2;
}

Test(check, external_data) {
    static const char *const bad[][3] = {{"/etc/passwd", "0", "leaves the directory"},
                                         {"../weights", "0", "leaves the directory"},
                                         {"none", "0", "no file \"none\""},
                                         {"w", "-1", "is no number"},
                                         {"w", "99999999999999999999", "is no number"},
                                         {"w", "1", "end past the 112"}};
    char                     dir[] = "/tmp/rr_check_XXXXXX", path[64];
    FILE                    *file;

    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/w", dir);
    file = fopen(path, "w");
    cr_assert(file);
    for (int i = 0; i < 112; i++)
        fputc(0, file);
    fclose(file);
    for (int i = -1; i < 6; i++) {
        rr__graph g;
        findings  f;
        uint8_t   bytes[4096];
        size_t    n;

        build(&g, 17);
        external(&g, i < 0 ? "w" : bad[i][0], i < 0 ? "0" : bad[i][1]);
        n = rr__onnx__model__get_packed_size(&g.model);
        cr_assert_lt(n, sizeof bytes);
        rr__onnx__model__pack(&g.model, bytes);
        cr_assert_eq(check_bytes(bytes, n, dir, &f), RR_OK);
        if (i < 0)
            cr_assert_eq(f.n_fault, 0, "%s", f.text);
        else
            cr_assert(strstr(f.text, bad[i][2]), "expected \"%s\" in:\n%s", bad[i][2], f.text);
        rr__graph_free(&g);
    }
    remove(path);
    rmdir(dir);
}

/* Put a length-delimited field around what stands at bytes[at..end); returns the new start. */
static size_t wrap(uint8_t *bytes, size_t at, size_t end, int field) {
    size_t len = end - at;

    bytes[--at] = (uint8_t)(len >> 14);
    bytes[--at] = (uint8_t)(128 | (len >> 7 & 127));
    bytes[--at] = (uint8_t)(128 | (len & 127));
    bytes[--at] = (uint8_t)(field << 3 | 2);
    return at;
}

Test(check, bytes_that_are_no_model) {
    static uint8_t nested[16384];
    findings       f;
    size_t         at, end = sizeof nested;

    cr_assert_eq(check_bytes("", 0, NULL, &f), RR_E_FORMAT);
    cr_assert_eq(check_bytes("hello, world", 12, NULL, &f), RR_E_FORMAT);
    for (int depth = 10; depth <= 1000;
         depth += 990) { /* graph in attribute in node in graph ... */
        at = end;
        for (int i = 0; i < depth; i++) {
            at = wrap(nested, at, end, 6);
            at = wrap(nested, at, end, 5);
            at = wrap(nested, at, end, 1);
        }
        at = wrap(nested, at, end, 7);
        cr_assert_eq(check_bytes(nested + at, end - at, NULL, &f),
                     depth == 10 ? RR_OK : RR_E_FORMAT);
    }
}

Test(check, cut_and_flipped_files_never_crash) {
    rr__graph g;
    uint8_t   bytes[4096], copy[4096];
    findings  f;
    size_t    n;

    build(&g, 17);
    n = rr__onnx__model__get_packed_size(&g.model);
    cr_assert_lt(n, sizeof bytes);
    rr__onnx__model__pack(&g.model, bytes);
    for (size_t cut = 0; cut < n; cut++)
        check_bytes(bytes, cut, NULL, &f);
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, bytes, n);
            copy[at] ^= (uint8_t)(1 << bit);
            check_bytes(copy, n, NULL, &f);
        }
    rr__graph_free(&g);
}
