/* IMAP4rev1: what its files have in common.
 *
 * Before login the front serves it (prelogin.h); afterwards the account's process does (session.h).
 * Below both lie parsers that eat bytes and never touch a socket:
 *
 *	input.h     bytes -> one whole command, literals included
 *	parser.h    the words of the grammar: atoms, strings, sets, flags
 *	command.h   a whole command -> struct imap_command
 *	fetch_items.h, search_keys.h   the two languages inside commands
 *	view.h      sequence numbers of a connection over the rows of a mailbox
 *	list_match.h  wildcards of LIST
 *	parked.h    an idle connection as a flat record
 */
#ifndef IMAP_IMAP_H
#define IMAP_IMAP_H

#include "base/arena.h"
#include "base/buf.h"

enum {
	/* A command without its APPEND messages; Dovecot's imap_max_line_length. */
	IMAP_LINE_MAX = 64 * 1024,
	/* Bytes read to be thrown away in one command, for refused literals and overlong lines.
	 * After login a message's size more, so that who sends one without asking (RFC 7888) is
	 * told why it was refused. */
	IMAP_DISCARD_MAX = 1024 * 1024,
	/* Memory of one command: its parse, its reply's pieces. */
	IMAP_COMMAND_BUDGET = 16 * 1024 * 1024,
	/* Commands that were not understood, in a row, until the connection is closed. */
	IMAP_BAD_MAX = 20,
	/* The longest IDLE or silence (RFC 3501 5.4: at least 30 minutes). */
	IMAP_IDLE_SECONDS = 30 * 60 + 30,
	/* Messages go inline to the store up to here (messages.def: st_append). */
	IMAP_INLINE_MAX = 32 * 1024,
};

enum imap_state {
	IMAP_BEFORE = 1,    /* not authenticated */
	IMAP_LOGGED_IN = 2, /* authenticated, no mailbox selected */
	IMAP_SELECTED = 4,
};

enum imap_command_flags {
	IMAP_UID_FORM = 1, /* "UID name" exists */
	/* RFC 3501 7.4.1: no EXPUNGE may be sent while it runs, because the client holds sequence
	 * numbers. The UID form is free of this. */
	IMAP_KEEPS_NUMBERS = 2,
};

enum imap_verb {
	IMAP_VERB_none,
#define COMMAND(name, word, grammar, states, flags) IMAP_VERB_##word,
#include "imap/imap.def"
#undef COMMAND
	IMAP_VERB_COUNT
};

#define IMAP_CAPABILITY_BASE "IMAP4rev1 LITERAL+ SASL-IR ID ENABLE IDLE"
/* What is announced after login. */
#define IMAP_CAPABILITY_SESSION                                                     \
	IMAP_CAPABILITY_BASE                                                        \
	" NAMESPACE CHILDREN UNSELECT UIDPLUS SPECIAL-USE CREATE-SPECIAL-USE MOVE " \
	"MULTIAPPEND LIST-STATUS"

#endif
