/* load_steps.c - see load_steps.h. Every component is an object with a "type"; one the engine does
 * not have ends in RR_E_UNSUPPORTED with its name. */
#include "text/load_steps.h"

#include "text/unicode.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* clang-format off */
const double rr__pow10[309] = {
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32,
    1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43, 1e44, 1e45, 1e46, 1e47, 1e48,
    1e49, 1e50, 1e51, 1e52, 1e53, 1e54, 1e55, 1e56, 1e57, 1e58, 1e59, 1e60, 1e61, 1e62, 1e63, 1e64,
    1e65, 1e66, 1e67, 1e68, 1e69, 1e70, 1e71, 1e72, 1e73, 1e74, 1e75, 1e76, 1e77, 1e78, 1e79, 1e80,
    1e81, 1e82, 1e83, 1e84, 1e85, 1e86, 1e87, 1e88, 1e89, 1e90, 1e91, 1e92, 1e93, 1e94, 1e95, 1e96,
    1e97, 1e98, 1e99, 1e100, 1e101, 1e102, 1e103, 1e104, 1e105, 1e106, 1e107, 1e108, 1e109, 1e110,
    1e111, 1e112, 1e113, 1e114, 1e115, 1e116, 1e117, 1e118, 1e119, 1e120, 1e121, 1e122, 1e123,
    1e124, 1e125, 1e126, 1e127, 1e128, 1e129, 1e130, 1e131, 1e132, 1e133, 1e134, 1e135, 1e136,
    1e137, 1e138, 1e139, 1e140, 1e141, 1e142, 1e143, 1e144, 1e145, 1e146, 1e147, 1e148, 1e149,
    1e150, 1e151, 1e152, 1e153, 1e154, 1e155, 1e156, 1e157, 1e158, 1e159, 1e160, 1e161, 1e162,
    1e163, 1e164, 1e165, 1e166, 1e167, 1e168, 1e169, 1e170, 1e171, 1e172, 1e173, 1e174, 1e175,
    1e176, 1e177, 1e178, 1e179, 1e180, 1e181, 1e182, 1e183, 1e184, 1e185, 1e186, 1e187, 1e188,
    1e189, 1e190, 1e191, 1e192, 1e193, 1e194, 1e195, 1e196, 1e197, 1e198, 1e199, 1e200, 1e201,
    1e202, 1e203, 1e204, 1e205, 1e206, 1e207, 1e208, 1e209, 1e210, 1e211, 1e212, 1e213, 1e214,
    1e215, 1e216, 1e217, 1e218, 1e219, 1e220, 1e221, 1e222, 1e223, 1e224, 1e225, 1e226, 1e227,
    1e228, 1e229, 1e230, 1e231, 1e232, 1e233, 1e234, 1e235, 1e236, 1e237, 1e238, 1e239, 1e240,
    1e241, 1e242, 1e243, 1e244, 1e245, 1e246, 1e247, 1e248, 1e249, 1e250, 1e251, 1e252, 1e253,
    1e254, 1e255, 1e256, 1e257, 1e258, 1e259, 1e260, 1e261, 1e262, 1e263, 1e264, 1e265, 1e266,
    1e267, 1e268, 1e269, 1e270, 1e271, 1e272, 1e273, 1e274, 1e275, 1e276, 1e277, 1e278, 1e279,
    1e280, 1e281, 1e282, 1e283, 1e284, 1e285, 1e286, 1e287, 1e288, 1e289, 1e290, 1e291, 1e292,
    1e293, 1e294, 1e295, 1e296, 1e297, 1e298, 1e299, 1e300, 1e301, 1e302, 1e303, 1e304, 1e305,
    1e306, 1e307, 1e308,
};
/* clang-format on */

/* What a component's object may hold; members of other components stay zero. */
typedef struct component {
    rr_str   type, charsmap, replacement, scheme, behavior, string, regex, content;
    rr__json list; /* normalizers or pretokenizers; p == NULL: absent */
    int      left, right, clean_text, chinese, accents, lower, prefix_space, split;
    /* accents and prefix_space: -1 not said */
} component;

static void take_bool(rr__json *j, int *out) {
    if (rr__json_peek(j) == RR__JSON_NULL)
        rr__json_null(j);
    else
        rr__json_bool(j, out);
}

static void take_pattern(rr__json *j, component *c) {
    rr_str key;

    for (rr__json_object(j); rr__json_key(j, &key);)
        if (rr__json_eq(key, "String"))
            rr__json_string(j, &c->string);
        else if (rr__json_eq(key, "Regex"))
            rr__json_string(j, &c->regex);
        else
            rr__json_skip(j);
}

static int read_component(rr__json *j, component *c) {
    static const struct {
        const char *key;
        size_t      at;
    } texts[] = {{"type", offsetof(component, type)},
                 {"precompiled_charsmap", offsetof(component, charsmap)},
                 {"replacement", offsetof(component, replacement)},
                 {"prepend_scheme", offsetof(component, scheme)},
                 {"behavior", offsetof(component, behavior)},
                 {"content", offsetof(component, content)}},
      flags[] = {{"strip_left", offsetof(component, left)},
                 {"strip_right", offsetof(component, right)},
                 {"clean_text", offsetof(component, clean_text)},
                 {"handle_chinese_chars", offsetof(component, chinese)},
                 {"strip_accents", offsetof(component, accents)},
                 {"lowercase", offsetof(component, lower)},
                 {"add_prefix_space", offsetof(component, prefix_space)},
                 {"split", offsetof(component, split)}};
    rr_str key;

    *c = (component){.accents = -1, .prefix_space = -1, .split = 1};
    rr__json_object(j);
    while (rr__json_key(j, &key)) {
        int known = 0;

        for (size_t i = 0; i < sizeof texts / sizeof *texts && !known; i++)
            if ((known = rr__json_eq(key, texts[i].key)))
                rr__json_string(j, (rr_str *)(void *)((char *)c + texts[i].at));
        for (size_t i = 0; i < sizeof flags / sizeof *flags && !known; i++)
            if ((known = rr__json_eq(key, flags[i].key)))
                take_bool(j, (int *)(void *)((char *)c + flags[i].at));
        if (known)
            continue;
        if (rr__json_eq(key, "pattern")) {
            take_pattern(j, c);
            continue;
        }
        if (rr__json_eq(key, "normalizers") || rr__json_eq(key, "pretokenizers"))
            c->list = *j;
        rr__json_skip(j);
    }
    return !j->what;
}

/* A name from the file as it may stand in a message: short, plain. */
typedef struct shown {
    char text[41];
} shown;

static shown show(rr_str s) {
    shown out = {""};

    for (size_t i = 0; i < s.len && i < sizeof out.text - 1; i++)
        out.text[i] = s.ptr[i] >= ' ' && s.ptr[i] <= '~' ? s.ptr[i] : '?';
    return out;
}

rr_status rr__load_unsupported(const char *name, const char *what, rr_str type, rr_error *err) {
    return rr__fail(err, RR_E_UNSUPPORTED, "%s: %s %s", name, what, show(type).text);
}

/* ---- normalizers ------------------------------------------------------------ */

static int base64_value(int c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decode into a new block; 0 when it is no base64 or memory is out. */
static int decode_base64(rr_str s, uint8_t **out, size_t *n) {
    uint8_t *p = malloc(s.len / 4 * 3 + 3);
    uint32_t bits = 0;
    int      have = 0;

    *n = 0;
    while (s.len && s.ptr[s.len - 1] == '=')
        s.len--;
    for (size_t i = 0; p && i < s.len; i++) {
        int v = base64_value(s.ptr[i]);

        if (v < 0) {
            free(p);
            return 0;
        }
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            p[(*n)++] = (uint8_t)(bits >> have);
        }
    }
    *out = p;
    return p != NULL;
}

static char *copy_text(rr_str s) {
    char *p = malloc(s.len + 1);

    if (p && s.len)
        memcpy(p, s.ptr, s.len);
    return p;
}

/* Patterns of Replace: a plain string, or one of the regular expressions "x+" and "x{n,}" for a
 * plain character x. */
static rr_status set_replace(rr__norm *step, const component *c, const char *name, rr_error *err) {
    rr_str         pattern = c->string;
    const uint8_t *p = (const uint8_t *)c->content.ptr, *end;

    if (!p)
        return rr__fail(err, RR_E_FORMAT, "%s: Replace without content", name);
    if (c->regex.len) {
        size_t x = (size_t)rr__utf8_len((uint8_t)c->regex.ptr[0]);
        rr_str rest;

        if (x > c->regex.len || strchr("\\.[](){}*+?|^$", c->regex.ptr[0]))
            return rr__load_unsupported(name, "regular expression", c->regex, err);
        pattern = (rr_str){c->regex.ptr, x};
        rest = (rr_str){c->regex.ptr + x, c->regex.len - x};
        if (rr__json_eq(rest, "+"))
            step->min_run = 1;
        else if (rest.len == 4 && rest.ptr[0] == '{' && rest.ptr[1] >= '1' && rest.ptr[1] <= '9' &&
                 rest.ptr[2] == ',' && rest.ptr[3] == '}')
            step->min_run = (size_t)(rest.ptr[1] - '0');
        else if (rest.len)
            return rr__load_unsupported(name, "regular expression", c->regex, err);
    }
    if (pattern.len == 0)
        return rr__fail(err, RR_E_UNSUPPORTED, "%s: Replace of nothing", name);
    end = p + c->content.len;
    for (int k; p < end; p += k)
        if ((k = rr__utf8_check(p, end)) < 0)
            return rr__fail(err, RR_E_FORMAT, "%s: Replace with text that is not UTF-8", name);
    step->kind = RR__NORM_REPLACE;
    step->pattern = copy_text(pattern);
    step->n_pattern = pattern.len;
    step->content = copy_text(c->content);
    step->n_content = c->content.len;
    if (!step->pattern || !step->content)
        return rr__fail(err, RR_E_NOMEM, "%s: out of memory", name);
    return RR_OK;
}

static rr_status set_charsmap(rr__norm *step, rr_str base64, const char *name, rr_error *err) {
    uint8_t  *blob;
    size_t    n;
    rr_status st;

    if (!decode_base64(base64, &blob, &n))
        return rr__fail(err, RR_E_FORMAT, "%s: precompiled_charsmap is no base64", name);
    step->kind = RR__NORM_PRECOMPILED;
    st = rr__charsmap_open(blob, n, &step->charsmap, err);
    free(blob);
    return st ? rr__fail_prefix(err, st, "%s", name) : RR_OK;
}

static rr_status add_normalizer(rr__tokenizer *t, const component *c, const char *name,
                                rr_error *err) {
    static const struct {
        const char   *type;
        rr__norm_kind kind;
    } plain[] = {{"Nmt", RR__NORM_NMT},
                 {"NFC", RR__NORM_NFC},
                 {"NFD", RR__NORM_NFD},
                 {"NFKC", RR__NORM_NFKC},
                 {"NFKD", RR__NORM_NFKD},
                 {"Lowercase", RR__NORM_LOWERCASE},
                 {"StripAccents", RR__NORM_STRIP_ACCENTS}};
    rr__norm *step = &t->norm[t->n_norm];

    if (t->n_norm == RR__MAX_STEPS)
        return rr__fail(err, RR_E_UNSUPPORTED, "%s: more than %d normalizers", name, RR__MAX_STEPS);
    t->n_norm++;
    if (rr__json_eq(c->type, "Precompiled"))
        return set_charsmap(step, c->charsmap, name, err);
    if (rr__json_eq(c->type, "Replace"))
        return set_replace(step, c, name, err);
    if (rr__json_eq(c->type, "Strip")) {
        *step = (rr__norm){.kind = RR__NORM_STRIP, .left = c->left, .right = c->right};
        return RR_OK;
    }
    if (rr__json_eq(c->type, "BertNormalizer")) {
        *step = (rr__norm){.kind = RR__NORM_BERT,
                           .clean_text = c->clean_text,
                           .chinese = c->chinese,
                           .accents = c->accents < 0 ? c->lower : c->accents,
                           .lower = c->lower};
        return RR_OK;
    }
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (rr__json_eq(c->type, plain[i].type)) {
            step->kind = plain[i].kind;
            return RR_OK;
        }
    t->n_norm--;
    return rr__load_unsupported(name, "normalizer", c->type, err);
}

/* ---- pre-tokenizers --------------------------------------------------------- */

static rr_status set_metaspace(rr__pretok *step, const component *c, const char *name,
                               rr_error *err) {
    const uint8_t *p = (const uint8_t *)c->replacement.ptr;

    if (c->replacement.len == 0 ||
        rr__utf8_check(p, p + c->replacement.len) != (int)c->replacement.len)
        return rr__fail(err, RR_E_FORMAT, "%s: Metaspace needs one character to put for a space",
                        name);
    *step = (rr__pretok){.kind = RR__PRETOK_METASPACE, .split = c->split};
    step->replacement = rr__utf8_get(p);
    if (c->scheme.len == 0 || rr__json_eq(c->scheme, "always"))
        step->prepend = RR__PREPEND_ALWAYS;
    else if (rr__json_eq(c->scheme, "first"))
        step->prepend = RR__PREPEND_FIRST;
    else if (rr__json_eq(c->scheme, "never"))
        step->prepend = RR__PREPEND_NEVER;
    else
        return rr__load_unsupported(name, "prepend_scheme", c->scheme, err);
    if (c->prefix_space == 0 && step->prepend != RR__PREPEND_NEVER)
        return rr__fail(err, RR_E_FORMAT, "%s: add_prefix_space does not match prepend_scheme",
                        name);
    return RR_OK;
}

static rr_status add_pretokenizer(rr__tokenizer *t, const component *c, const char *name,
                                  rr_error *err) {
    static const struct {
        const char     *type;
        rr__pretok_kind kind;
    } plain[] = {{"WhitespaceSplit", RR__PRETOK_WHITESPACE_SPLIT},
                 {"Whitespace", RR__PRETOK_WHITESPACE},
                 {"BertPreTokenizer", RR__PRETOK_BERT},
                 {"Punctuation", RR__PRETOK_PUNCTUATION}};
    rr__pretok *step = &t->pretok[t->n_pretok];

    if (t->n_pretok == RR__MAX_STEPS)
        return rr__fail(err, RR_E_UNSUPPORTED, "%s: more than %d pre-tokenizers", name,
                        RR__MAX_STEPS);
    t->n_pretok++;
    if (rr__json_eq(c->type, "Metaspace"))
        return set_metaspace(step, c, name, err);
    if (rr__json_eq(c->type, "Punctuation") && c->behavior.len &&
        !rr__json_eq(c->behavior, "Isolated"))
        return rr__load_unsupported(name, "Punctuation behavior", c->behavior, err);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (rr__json_eq(c->type, plain[i].type)) {
            step->kind = plain[i].kind;
            return RR_OK;
        }
    t->n_pretok--;
    return rr__load_unsupported(name, "pre-tokenizer", c->type, err);
}

/* One component, or a Sequence of them, `depth` Sequences deep. */
static rr_status load_list(rr__tokenizer *t, rr__json *j, int pretok, int depth, const char *name,
                           rr_error *err) {
    component c;
    rr_status st = RR_OK;

    if (rr__json_peek(j) == RR__JSON_NULL) {
        rr__json_null(j);
        return RR_OK;
    }
    if (!read_component(j, &c))
        return rr__json_fail(j, name, err);
    if (!rr__json_eq(c.type, "Sequence"))
        return pretok ? add_pretokenizer(t, &c, name, err) : add_normalizer(t, &c, name, err);
    if (!c.list.p || depth == 8)
        return rr__fail(err, RR_E_FORMAT, "%s: Sequence without a list", name);
    for (rr__json_array(&c.list); !st && rr__json_next(&c.list);)
        st = load_list(t, &c.list, pretok, depth + 1, name, err);
    return st ? st : c.list.what ? rr__json_fail(&c.list, name, err) : RR_OK;
}

rr_status rr__load_normalizer(rr__tokenizer *t, rr__json *j, const char *name, rr_error *err) {
    return load_list(t, j, 0, 0, name, err);
}

rr_status rr__load_pretokenizer(rr__tokenizer *t, rr__json *j, const char *name, rr_error *err) {
    return load_list(t, j, 1, 0, name, err);
}

/* ---- templates --------------------------------------------------------------- */

/* One piece of TemplateProcessing: {"SpecialToken" or "Sequence": {"id": ..., "type_id": ...}}. */
static void read_template_piece(rr__json *j, rr_str *id, int64_t *type, int *special) {
    rr_str key, kind;

    *id = (rr_str){NULL, 0};
    *type = 0;
    rr__json_object(j);
    while (rr__json_key(j, &kind)) {
        *special = rr__json_eq(kind, "SpecialToken");
        for (rr__json_object(j); rr__json_key(j, &key);)
            if (rr__json_eq(key, "id"))
                rr__json_string(j, id);
            else if (rr__json_eq(key, "type_id"))
                rr__json_i64(j, type);
            else
                rr__json_skip(j);
    }
}

/* Special tokens go into w in the order they stand; texts must be A, then B (pair). Segment 1 may
 * begin at B or among the tokens before it, and goes on to the end. */
static rr_status read_template(const rr__tokenizer *t, rr__json *j, int pair, rr__template *w,
                               const char *name, rr_error *err) {
    int     slot = 0, special = 0;
    rr_str  id;
    int64_t type, last = 0;

    *w = (rr__template){.mid_seg0 = -1};
    for (rr__json_array(j); rr__json_next(j);) {
        read_template_piece(j, &id, &type, &special);
        if (j->what)
            break;
        if (pair && (type < last || type > 1 || (type > last && slot != 1)))
            return rr__fail(err, RR_E_UNSUPPORTED, "%s: template with such type ids", name);
        if (type > last)
            w->mid_seg0 = w->n[1];
        last = type;
        if (!special) {
            if (slot > pair || !rr__json_eq(id, slot ? "B" : "A"))
                return rr__load_unsupported(name, "template with text", id, err);
            slot++;
            continue;
        }
        if (w->n[slot] == RR__MAX_SPECIAL)
            return rr__fail(err, RR_E_UNSUPPORTED, "%s: template with too many tokens", name);
        w->id[slot][w->n[slot]] = rr__tokenizer_id(t, id);
        if (w->id[slot][w->n[slot]++] < 0)
            return rr__load_unsupported(name, "template with unknown token", id, err);
    }
    if (!j->what && slot != pair + 1)
        return rr__fail(err, RR_E_UNSUPPORTED, "%s: template without its texts", name);
    return RR_OK;
}

/* BertProcessing and RobertaProcessing name their tokens as ["</s>", 2]. */
static int32_t read_named_token(const rr__tokenizer *t, rr__json *j) {
    rr_str  text = {NULL, 0};
    int64_t id = 0;

    if (rr__json_array(j) && rr__json_next(j) && rr__json_string(j, &text) && rr__json_next(j) &&
        rr__json_i64(j, &id) && !rr__json_next(j) && !j->what && (id < 0 || id >= t->n_id))
        rr__json_error(j, "token id out of range");
    return (int32_t)id;
}

rr_status rr__load_template(rr__tokenizer *t, rr__json *j, const char *name, rr_error *err) {
    rr_str    key, type = {NULL, 0};
    rr__json  single = {0}, pair = {0};
    int32_t   sep = -1, cls = -1;
    rr_status st;

    if (rr__json_peek(j) == RR__JSON_NULL)
        return RR_OK;
    for (rr__json_object(j); rr__json_key(j, &key);) {
        if (rr__json_eq(key, "type")) {
            rr__json_string(j, &type);
        } else if (rr__json_eq(key, "sep")) {
            sep = read_named_token(t, j);
        } else if (rr__json_eq(key, "cls")) {
            cls = read_named_token(t, j);
        } else {
            if (rr__json_eq(key, "single"))
                single = *j;
            else if (rr__json_eq(key, "pair"))
                pair = *j;
            rr__json_skip(j);
        }
    }
    if (j->what)
        return rr__json_fail(j, name, err);
    if ((rr__json_eq(type, "RobertaProcessing") || rr__json_eq(type, "BertProcessing")) &&
        sep >= 0 && cls >= 0) {
        rr__tokenizer_template(t, cls, sep, rr__json_eq(type, "RobertaProcessing"));
        return RR_OK;
    }
    if (!rr__json_eq(type, "TemplateProcessing") || !single.p || !pair.p)
        return rr__load_unsupported(name, "post_processor", type, err);
    if ((st = read_template(t, &single, 0, &t->single, name, err)) ||
        (st = read_template(t, &pair, 1, &t->pair, name, err)))
        return st;
    return single.what ? rr__json_fail(&single, name, err)
           : pair.what ? rr__json_fail(&pair, name, err)
                       : RR_OK;
}

rr_status rr__wordpiece_setup(rr__tokenizer *t, rr_str unk, rr_str prefix, int64_t max_chars,
                              const char *name, rr_error *err) {
    rr__wordpiece *w = &t->wordpiece;

    t->kind = RR__MODEL_WORDPIECE;
    w->unk_id = rr__vocab_find(&t->vocab, unk.ptr, unk.len);
    w->max_chars = max_chars;
    w->has_inner = prefix.len == 0 || rr__vocab_walk(&t->vocab, prefix.ptr, prefix.len, &w->inner);
    if (prefix.len == 0)
        w->inner = t->vocab.root;
    if (w->unk_id < 0)
        return rr__fail(err, RR_E_FORMAT, "%s: the vocabulary lacks the unknown token %s", name,
                        show(unk).text);
    return RR_OK;
}
