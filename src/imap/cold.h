/* Reads cold rows (envelope, structure) of a run of messages, the next answer under way while one
 * is used. */
#ifndef IMAP_COLD_H
#define IMAP_COLD_H

#include "imap/account.h"

struct imap_cold;

/* For UIDs of [first, last] in rising order. NULL without memory. */
struct imap_cold *imap_cold_new(struct imap_account *a, uint32_t mailbox, uint32_t first,
				uint32_t last);
void imap_cold_free(struct imap_cold *c); /* NULL is allowed; waits for nothing */
/* The record lives until the next call. ERR_NOT_FOUND: there is no such message any more. */
MUST_USE enum err imap_cold_get(struct imap_cold *c, uint32_t uid, struct rec_row_cold *out);

#endif
