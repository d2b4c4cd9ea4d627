/* A whole command -> its parts (RFC 3501 9). */
#ifndef IMAP_COMMAND_H
#define IMAP_COMMAND_H

#include "imap/fetch_items.h"
#include "imap/search_keys.h"

enum imap_status_items {
	IMAP_STATUS_MESSAGES = 1,
	IMAP_STATUS_RECENT = 2,
	IMAP_STATUS_UIDNEXT = 4,
	IMAP_STATUS_UIDVALIDITY = 8,
	IMAP_STATUS_UNSEEN = 16,
};

enum imap_flags_mode { IMAP_FLAGS_SET, IMAP_FLAGS_ADD, IMAP_FLAGS_REMOVE };

enum { IMAP_ATOMS_MAX = 50 };

struct imap_command {
	str tag;  /* empty when not even that was understood */
	str name; /* as the client wrote it, for the reply */
	enum imap_verb verb;
	unsigned states, flags; /* of imap.def */
	bool is_uid;

	str mailbox, target;
	bool mailbox_is_valid, target_is_valid;
	str user, password;
	str mechanism, initial; /* AUTHENTICATE: base64, "=" for empty; p NULL when absent */
	str reference, pattern; /* LIST, LSUB */
	unsigned status_items;
	bool returns_status; /* LIST ... RETURN (STATUS (...)), RFC 5819 */
	str atoms[IMAP_ATOMS_MAX];
	size_t atom_count;
	unsigned special; /* CREATE (USE (\Sent)): enum mailbox_special */
	bool special_is_unknown;
	struct imap_set set; /* not resolved */
	struct imap_flags set_flags;
	enum imap_flags_mode mode;
	bool is_silent;
	bool has_set; /* UID EXPUNGE */
	struct imap_fetch fetch;
	struct imap_search search;
};

/* ERR_SYNTAX: *wrong says what to answer with BAD; out->tag is set when there was one.
 * ERR_NO_MEMORY. The state is not looked at. Of APPEND only the mailbox is read:
 * imap_parse_append_part reads the rest. */
MUST_USE enum err imap_command_parse(str text, struct arena *a, struct imap_command *out,
				     const char **wrong);

struct imap_append_part {
	struct imap_flags flags;
	bool has_date;
	int64_t seconds;
	int zone;
};
/* What stands before a message's literal: `text` is, for the first message, the command, for the
 * others what came behind the last message. */
MUST_USE enum err imap_parse_append_part(str text, bool is_first, struct arena *a,
					 struct imap_append_part *out, const char **wrong);

/* enum mailbox_special of "\Sent", 0 when unknown; and the other way. */
unsigned imap_special_from_name(str name);
str imap_special_name(unsigned special);

#endif
