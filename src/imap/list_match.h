/* The wildcards of LIST and LSUB (RFC 3501 6.3.8). */
#ifndef IMAP_LIST_MATCH_H
#define IMAP_LIST_MATCH_H

#include "base/str.h"

enum imap_list_match {
	IMAP_LIST_NO,
	IMAP_LIST_YES,
	IMAP_LIST_PARENT, /* a prefix of `name` that ends at a separator matches, the name itself
			     does not */
};

/* '*' is anything, '%' anything without '/'. INBOX matches in any case. *prefix: with
 * IMAP_LIST_PARENT, how many bytes of name are the longest level that matched. */
enum imap_list_match imap_list_match(str pattern, str name, size_t *prefix);

#endif
