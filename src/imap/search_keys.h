/* What SEARCH asks for (RFC 3501 6.4.4): a tree of keys. */
#ifndef IMAP_SEARCH_KEYS_H
#define IMAP_SEARCH_KEYS_H

#include "imap/parser.h"

enum imap_search_op {
	IMAP_SEARCH_AND,      /* of all children: a list in parentheses, the whole command */
	IMAP_SEARCH_OR,	      /* of its two children */
	IMAP_SEARCH_NOT,      /* of its child */
	IMAP_SEARCH_SEQUENCE, /* a bare sequence set */
#define SEARCH_KEY(name, op, argument, cost) IMAP_SEARCH_##op,
#include "imap/search.def"
#undef SEARCH_KEY
	IMAP_SEARCH_OP_COUNT
};

enum imap_search_cost { IMAP_COST_HOT, IMAP_COST_HEADER, IMAP_COST_BODY };

/* How deep parentheses and NOTs nest; how many keys a command may have. */
enum { IMAP_SEARCH_DEPTH_MAX = 50, IMAP_SEARCH_KEYS_MAX = 5000 };

struct imap_search_key {
	enum imap_search_op op;
	enum imap_search_cost cost; /* the dearest in this subtree */
	str name;		    /* of the header, or the keyword */
	str text;		    /* UTF-8, folded for comparison */
	uint64_t size;
	int32_t day;	     /* since 1970 */
	struct imap_set set; /* resolved by whoever knows the mailbox: imap_search_resolve */
	struct imap_search_key *children, *next;
};

struct imap_search {
	struct imap_search_key *root; /* IMAP_SEARCH_AND */
	bool bad_charset;	      /* NO [BADCHARSET] */
};

MUST_USE enum err imap_parse_search(struct imap_parser *p, struct imap_search *out);

/* Sets become ranges for a mailbox of `exists` messages whose highest UID is `max_uid`. */
void imap_search_resolve(struct imap_search_key *key, uint32_t exists, uint32_t max_uid);

#endif
