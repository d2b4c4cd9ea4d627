/* Wildcards of LIST. */
#include "imap/list_match.h"

#include "base/tap.h"

static const struct {
	const char *pattern, *name;
	enum imap_list_match match;
	size_t prefix;
} rows[] = {
	{ "*", "a/b", IMAP_LIST_YES, 0 },
	{ "%", "a/b", IMAP_LIST_PARENT, 1 },
	{ "%", "a", IMAP_LIST_YES, 0 },
	{ "%/%", "a/b", IMAP_LIST_YES, 0 },
	{ "%/%", "a/b/c", IMAP_LIST_PARENT, 3 },
	{ "a/*", "a", IMAP_LIST_NO, 0 },
	{ "a*", "a/b", IMAP_LIST_YES, 1 },
	{ "INBOX", "INBOX", IMAP_LIST_YES, 0 },
	{ "inbox", "INBOX", IMAP_LIST_YES, 0 },
	{ "inbox/%", "INBOX/x", IMAP_LIST_YES, 0 },
	{ "inbox/X", "INBOX/x", IMAP_LIST_NO, 0 },
	{ "sent", "Sent", IMAP_LIST_NO, 0 },
	{ "", "a", IMAP_LIST_NO, 0 },
	{ "*%", "a/b", IMAP_LIST_YES, 1 },
	{ "%*", "a/b", IMAP_LIST_YES, 1 },
	{ "*b", "a/b", IMAP_LIST_YES, 0 },
	{ "%b", "a/b", IMAP_LIST_NO, 0 },
	/* Exponential for a matcher that goes back. */
	{ "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	  IMAP_LIST_NO, 0 },
};

int main(void)
{
	size_t prefix;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		tap_group(rows[i].pattern);
		EQ(imap_list_match(str_from_c(rows[i].pattern), str_from_c(rows[i].name), &prefix),
		   rows[i].match);
		if (rows[i].match == IMAP_LIST_PARENT)
			EQ(prefix, rows[i].prefix);
	}
	return tap_done();
}
