/* unicode.c - see unicode.h. */
#include "text/unicode.h"

#include "text/utf8.h"

enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7 };
enum { L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT };

/* Whether a cluster continues from one class to the next, by the rules that look at two classes
 * only (GB3 to GB9b); -1 leaves it to the rules that look further back. */
static int joins(uint32_t before, uint32_t after) {
    if (before == RR__GC_CR && after == RR__GC_LF)
        return 1;
    if ((before >= RR__GC_CR && before <= RR__GC_CONTROL) ||
        (after >= RR__GC_CR && after <= RR__GC_CONTROL))
        return 0;
    if (after == RR__GC_EXTEND || after == RR__GC_ZWJ || after == RR__GC_SPACING_MARK ||
        before == RR__GC_PREPEND)
        return 1;
    switch (before) {
    case RR__GC_L:
        if (after == RR__GC_L || after == RR__GC_V || after == RR__GC_LV || after == RR__GC_LVT)
            return 1;
        break;
    case RR__GC_LV:
    case RR__GC_V:
        if (after == RR__GC_V || after == RR__GC_T)
            return 1;
        break;
    case RR__GC_LVT:
    case RR__GC_T:
        if (after == RR__GC_T)
            return 1;
        break;
    default:
        break;
    }
    return -1;
}

const uint8_t *rr__grapheme_end(const uint8_t *p, const uint8_t *end) {
    uint32_t props = rr__uc_props(rr__utf8_get(p)), before = props & RR__GC_MASK;
    /* What lies before the cursor: an odd number of regional indicators; a pictograph and Extend*,
     * perhaps with ZWJ; a consonant and any linkers or extenders, with a linker among them. */
    int odd = before == RR__GC_REGIONAL, picto = before == RR__GC_PICTOGRAPHIC, picto_zwj = 0;
    int consonant = before == RR__GC_CONSONANT, linker = 0;

    for (p += rr__utf8_len(*p); p < end && rr__utf8_check(p, end) > 0; p += rr__utf8_len(*p)) {
        uint32_t next = rr__uc_props(rr__utf8_get(p)), after = next & RR__GC_MASK;
        int      join = joins(before, after);

        if (join < 0)
            join = (after == RR__GC_CONSONANT && consonant && linker) ||
                   (after == RR__GC_PICTOGRAPHIC && picto_zwj) ||
                   (after == RR__GC_REGIONAL && before == RR__GC_REGIONAL && odd);
        if (!join)
            break;
        odd = after == RR__GC_REGIONAL ? !odd : 0;
        picto_zwj = picto && after == RR__GC_ZWJ;
        picto = after == RR__GC_PICTOGRAPHIC || (picto && after == RR__GC_EXTEND);
        if (after == RR__GC_CONSONANT) {
            consonant = 1;
            linker = 0;
        } else if (next & RR__UC_LINKER) {
            linker = 1;
        } else if (!(next & RR__UC_INCB_EXTEND)) {
            consonant = 0;
        }
        before = after;
    }
    return p;
}

/* Index of key in a sorted table of n, or n. Each entry may carry `low` bits below the key. */
static uint32_t find(const uint32_t *table, uint32_t n, uint32_t key, int low) {
    uint32_t a = 0, b = n;

    while (a < b) {
        uint32_t mid = (a + b) / 2;

        if (table[mid] >> low < key)
            a = mid + 1;
        else
            b = mid;
    }
    return a < n && table[a] >> low == key ? a : n;
}

static int copy(uint32_t i, const uint16_t *at, const uint32_t *pool, uint32_t *out) {
    int n = 0;

    for (uint32_t k = at[i]; k < at[i + 1]; k++)
        out[n++] = pool[k];
    return n;
}

int rr__uc_lower(uint32_t c, uint32_t *out) {
    if (rr__uc_props(c) & RR__UC_LOWER)
        return copy(find(rr__uc_lower_key, rr__uc_n_lower, c, 0), rr__uc_lower_at,
                    rr__uc_lower_pool, out);
    out[0] = c;
    return 1;
}

int rr__uc_decompose(uint32_t c, int compat, uint32_t *out) {
    uint32_t props = rr__uc_props(c);

    if (compat && props & RR__UC_NFKD)
        return copy(find(rr__uc_nfkd_key, rr__uc_n_nfkd, c, 0), rr__uc_nfkd_at, rr__uc_nfkd_pool,
                    out);
    if (props & RR__UC_NFD)
        return copy(find(rr__uc_nfd_key, rr__uc_n_nfd, c, 0), rr__uc_nfd_at, rr__uc_nfd_pool, out);
    if (c >= S_BASE && c < S_BASE + S_COUNT) {
        uint32_t s = c - S_BASE;

        out[0] = L_BASE + s / (V_COUNT * T_COUNT);
        out[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
        out[2] = T_BASE + s % T_COUNT;
        return s % T_COUNT ? 3 : 2;
    }
    out[0] = c;
    return 1;
}

int rr__uc_ccc_of(uint32_t c) {
    uint32_t i = c < 0x300 ? rr__uc_n_ccc : find(rr__uc_ccc, rr__uc_n_ccc, c, 8);

    return i == rr__uc_n_ccc ? 0 : (int)(rr__uc_ccc[i] & 255);
}

uint32_t rr__uc_compose(uint32_t first, uint32_t second) {
    uint32_t a = 0, b = rr__uc_n_pair;

    if (first >= L_BASE && first < L_BASE + L_COUNT && second >= V_BASE &&
        second < V_BASE + V_COUNT)
        return S_BASE + ((first - L_BASE) * V_COUNT + (second - V_BASE)) * T_COUNT;
    if (first >= S_BASE && first < S_BASE + S_COUNT && (first - S_BASE) % T_COUNT == 0 &&
        second > T_BASE && second < T_BASE + T_COUNT)
        return first + (second - T_BASE);
    while (a < b) {
        uint32_t mid = (a + b) / 2;

        if (rr__uc_first[mid] < first ||
            (rr__uc_first[mid] == first && rr__uc_second[mid] < second))
            a = mid + 1;
        else
            b = mid;
    }
    return a < rr__uc_n_pair && rr__uc_first[a] == first && rr__uc_second[a] == second
               ? rr__uc_composed[a]
               : 0;
}
