/* With which name and password to log in at a relay: the file of smtp_sasl_password_maps.
 *
 *	[mail.example.net]:587 alice:secret
 *
 * A line has a next hop, as relayhost or transport_maps write it, or a server's name; white space;
 * and a name and a password, with a colon between them. Lines that are empty or begin with '#'
 * count for nothing. That is the text from which Postfix's postmap makes such a table.
 */
#ifndef QUEUE_RELAY_LOGIN_H
#define QUEUE_RELAY_LOGIN_H

#include "base/str.h"

enum {
	RELAY_LOGIN_FILE_MAX = 64 * 1024,
	RELAY_LOGIN_MAX = 255, /* a name or a password, RFC 4616 2 */
};

struct relay_login {
	str key, user, password;
};

struct relay_logins;

/* Copies the text. ERR_SYNTAX: *line is the first that is wrong; ERR_TOO_LONG; ERR_NO_MEMORY. */
MUST_USE enum err relay_logins_parse(str text, struct relay_logins **out, unsigned *line);
void relay_logins_free(struct relay_logins *l);		 /* wipes it; NULL is allowed */
size_t relay_logins_count(const struct relay_logins *l); /* NULL: none */

/* The first line for this next hop, or else for the server's name; NULL without one. Borrows. */
const struct relay_login *relay_logins_find(const struct relay_logins *l, str hop, str server);

#endif
