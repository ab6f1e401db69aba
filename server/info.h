/* info.h - the handlers that answer without the engine, named by the table in routes.c. */
#ifndef RR_SERVER_INFO_H
#define RR_SERVER_INFO_H

#include "server/request.h"

void rr__get_info(rr__request *r);      /* dialects/tei.c    */
void rr__post_tokenize(rr__request *r); /* dialects/tokens.c */
void rr__post_decode(rr__request *r);
void rr__get_models(rr__request *r); /* dialects/results.c */
void rr__get_page(rr__request *r);   /* assets.c          */
void rr__get_openapi(rr__request *r);
void rr__get_health(rr__request *r); /* health.c          */
void rr__get_ready(rr__request *r);
void rr__get_metrics(rr__request *r); /* metrics.c         */
void rr__kserve_live(rr__request *r); /* dialects/kserve.c */
void rr__kserve_ready(rr__request *r);
void rr__kserve_server(rr__request *r);
void rr__kserve_model(rr__request *r);
void rr__kserve_config(rr__request *r);

#endif
