/* How many connections, and how often, from each client address: the front's limits.
 *
 * A client is an IPv4 address, or the 64 bits of an IPv6 network, which one customer has all of.
 * What is counted here is this process's share. Entries without connections are forgotten when room
 * is needed, the longest unused first. */
#ifndef ROLES_FRONT_CLIENTS_H
#define ROLES_FRONT_CLIENTS_H

#include "base/addr.h"

struct front_clients;

enum front_admission { FRONT_ADMITTED, FRONT_TOO_MANY, FRONT_TOO_OFTEN };

/* `max`: addresses remembered. */
MUST_USE enum err front_clients_new(size_t max, struct front_clients **out);
void front_clients_free(struct front_clients *c);

/* A new connection; `now` in nanoseconds. at_once: so many at a time; per_minute: 0 for no limit.
 * When admitted, front_clients_end must follow. */
enum front_admission front_clients_begin(struct front_clients *c, const struct addr *a, int64_t now,
					 uint64_t at_once, uint64_t per_minute);
void front_clients_end(struct front_clients *c, const struct addr *a);
/* One message more: false when that is above the limit. */
bool front_clients_message(struct front_clients *c, const struct addr *a, int64_t now,
			   uint64_t per_minute);

#endif
