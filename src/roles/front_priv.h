/* Role front from inside. */
#ifndef ROLES_FRONT_PRIV_H
#define ROLES_FRONT_PRIV_H

#include "imap/prelogin.h"
#include "net/tls.h"
#include "roles/front_clients.h"
#include "roles/role.h"
#include "smtp/session.h"

enum {
	FRONT_LISTENERS_MAX = 64,
	FRONT_FILTERS_MAX = 64,
	FRONT_ACCEPT_BATCH =
		16, /* connections taken per wake-up; then the others have their turn */
};

/* auth knows the connections of a front by numbers: SMTP's begin at 1, IMAP's here. */
#define FRONT_IMAP_CONN (UINT64_C(1) << 63)

struct front;

/* One row for each service that a listener may have; it takes over the connection. */
struct front_service {
	const char *name;
	MUST_USE enum err (*serve)(struct front *f, struct conn *c,
				   const struct front_service *service);
	unsigned kind;	  /* for `serve` */
	const char *busy; /* what is said to a connection that cannot be taken; "" under TLS */
	bool is_limited;  /* per client address */
};

struct front_listener {
	struct front *front;
	const struct front_service *service;
	struct watch watch;
	struct timer again; /* after accept failed for want of descriptors */
	int fd;
	bool is_watched;
};

struct front {
	struct role *role;
	struct tls_context *tls;
	struct front_clients *clients;
	struct smtp_server smtp;
	struct imap_front imap;
	struct chan *filters[FRONT_FILTERS_MAX];
	struct front_listener listeners[FRONT_LISTENERS_MAX];
	unsigned listener_count;
	bool is_stopping;
	struct timer give_up; /* while stopping */
	uint32_t connections; /* of all services */
	uint64_t taken, turned_away;
};

#endif
