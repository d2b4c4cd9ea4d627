/* How many connections, and how often, from each client address: the front's limits.
 *
 * A client is an IPv4 address, or the 64 bits of an IPv6 network, which one customer has all of.
 * Entries without connections are forgotten when room is needed, the longest unused first.
 *
 * The front processes of a server count together: each writes what it counts into a part of a file
 * in memory that is its own, and reads the others'. There are no locks: two processes that admit in
 * the same instant may exceed a limit by one. A front that was broken into can keep clients away by
 * that, which it could without it. */
#ifndef ROLES_FRONT_CLIENTS_H
#define ROLES_FRONT_CLIENTS_H

#include "base/addr.h"

struct front_clients;

enum front_admission { FRONT_ADMITTED, FRONT_TOO_MANY, FRONT_TOO_OFTEN };

/* `max`: addresses remembered. */
MUST_USE enum err front_clients_new(size_t max, struct front_clients **out);
void front_clients_free(struct front_clients *c);
/* From now on it counts together with the other processes, as number `index` of them. `file` is
 * taken over. With errors of the file, now or later, it counts alone. */
MUST_USE enum err front_clients_share(struct front_clients *c, int file, unsigned index);

/* A new connection; `now` in nanoseconds. at_once: so many at a time; per_minute: 0 for no limit.
 * When admitted, front_clients_end must follow. */
enum front_admission front_clients_begin(struct front_clients *c, const struct addr *a, int64_t now,
					 uint64_t at_once, uint64_t per_minute);
void front_clients_end(struct front_clients *c, const struct addr *a, int64_t now);
/* One message more: false when that is above the limit. */
bool front_clients_message(struct front_clients *c, const struct addr *a, int64_t now,
			   uint64_t per_minute);

#endif
