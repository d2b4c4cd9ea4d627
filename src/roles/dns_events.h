/* libunbound's event interface over our loop: see dns_events.c. */
#ifndef ROLES_DNS_EVENTS_H
#define ROLES_DNS_EVENTS_H

#include "base/loop.h"

struct ub_event_base;
struct dns_events;

/* A base for ub_ctx_create_ub_event. It is freed after the context, never before. */
MUST_USE enum err dns_events_new(struct loop *l, struct dns_events **out);
void dns_events_free(struct dns_events *e);
struct ub_event_base *dns_events_base(struct dns_events *e);

#endif
