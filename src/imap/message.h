/* The bytes of a message: the recipient's prefix, then the sealed body, read from the segment
 * itself.
 *
 * Messages are named by their UID in a view, which holds whatever happens while a call waits. All
 * functions that take an account may wait for the store the first time; then locations, prefixes
 * and descriptors are in memory, and a read is one pread and one decryption.
 */
#ifndef IMAP_MESSAGE_H
#define IMAP_MESSAGE_H

#include "imap/account.h"

struct mime_part;

/* A message read whole; counted, since the account keeps the last one. */
struct imap_message {
	unsigned references;
	uint32_t mailbox, uid;
	uint64_t body;
	str bytes;
	struct arena *arena; /* of the tree */
	struct mime_part *root;
};

/* Bytes [from, from + n), which must lie inside of the message. ERR_NOT_FOUND: it was expunged
 * meanwhile. ERR_DAMAGED: logged already. */
MUST_USE enum err imap_message_read(struct imap_account *a, struct imap_view *v, uint32_t uid,
				    uint64_t from, size_t n, char *out);
/* All of it. The caller releases it. */
MUST_USE enum err imap_message_open(struct imap_account *a, struct imap_view *v, uint32_t uid,
				    struct imap_message **out);
void imap_message_release(struct imap_message *m); /* NULL is allowed */
/* Its MIME tree, made when first asked for. */
MUST_USE enum err imap_message_tree(struct imap_message *m, struct mime_part **root);
/* The budget of an arena that any header fits into; there is one message that is nothing else. */
size_t imap_message_header_budget(const struct imap_account *a);
/* The header block, its blank line included, in the arena: read in steps, never more than needed.
 */
MUST_USE enum err imap_message_header(struct imap_account *a, struct imap_view *v, uint32_t uid,
				      struct arena *arena, str *out);
/* The account keeps no large message while nothing happens. */
void imap_message_trim(struct imap_account *a);

#endif
