/* Recipients that auth granted to anybody, and has not taken back (auth_verdict, `holds`): RCPT of
 * one of them needs no question now, for it will be asked with the end of the data. A bounded set
 * of addresses as they were asked for; who was not seen for the longest time goes first.
 *
 * One for all sessions of a process. Everything in it is forgotten when auth says that something
 * changed (auth_changed), or went away. */
#ifndef SMTP_KNOWN_H
#define SMTP_KNOWN_H

#include "base/str.h"

struct smtp_known;

/* ERR_NO_MEMORY. `max`: addresses. */
MUST_USE enum err smtp_known_new(size_t max, struct smtp_known **out);
void smtp_known_free(struct smtp_known *k);
/* How often it was cleared. */
uint64_t smtp_known_clears(const struct smtp_known *k);
/* `clears`: when auth was asked; not kept when there was one since, nor without memory. */
void smtp_known_add(struct smtp_known *k, str address, uint64_t clears);
bool smtp_known_has(struct smtp_known *k, str address);
void smtp_known_clear(struct smtp_known *k);

#endif
