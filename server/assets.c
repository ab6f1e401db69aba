/* assets.c - the playground page and the OpenAPI document, embedded by mk/parts/server.mk. */
#include "server/info.h"

static const unsigned char page[] = {
#include "playground.inc"
};
static const unsigned char openapi[] = {
#include "openapi.inc"
};

void rr__get_page(rr__request *r) {
    r->type = "text/html; charset=utf-8";
    r->fixed = page;
    r->fixed_len = sizeof page;
}

void rr__get_openapi(rr__request *r) {
    r->fixed = openapi;
    r->fixed_len = sizeof openapi;
}
