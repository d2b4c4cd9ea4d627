/* Command lines of SMTP and LMTP, as typed commands.
 *
 * smtp_command_parse takes one line without its end and either fills a struct smtp_command or says
 * what is wrong as an `enum smtp_fault`, whose reply stands in smtp.def. It touches no socket and
 * keeps no state; whether a command is allowed now is smtp_is_allowed's to say, from the same table.
 *
 *	fault = smtp_command_parse(line, SMTP_DIALECT_SMTP, false, arena, &command);
 *	if (fault)
 *		... smtp_fault_info(fault)->code, ->status, ->text
 *
 * Slices borrow from the line or live in the arena. Limits: SMTP_LINE_MAX for a line (AUTH:
 * SMTP_AUTH_LINE_MAX), those of mime/address.h for addresses, of RFC 3461 for DSN parameters.
 */
#ifndef SMTP_COMMAND_H
#define SMTP_COMMAND_H

#include "mime/address.h"

enum {
	/* RFC 5321 4.5.3.1.4 asks for 512 and more for extensions, which together ask for less than
	   2000; Postfix takes 2048. */
	SMTP_LINE_MAX = 2048,
	SMTP_AUTH_LINE_MAX = 12288, /* RFC 4954 4: the longest AUTH command or response */
	SMTP_HELO_MAX = 255,	    /* RFC 5321 4.5.3.1.2 */
	SMTP_ENVID_MAX = 100,	    /* RFC 3461 4.4: its encoded length */
	SMTP_ORCPT_MAX = 500,	    /* RFC 3461 4.2 */
};

enum smtp_verb {
	SMTP_NO_VERB,
#define VERB(name, dialects, states, form, help) SMTP_##name,
#include "smtp/smtp.def"
	SMTP_VERB_COUNT
};

enum smtp_fault {
#define FAULT(name, code, status, text) SMTP_FAULT_##name,
#include "smtp/smtp.def"
	SMTP_FAULT_COUNT
};

enum smtp_dialect { SMTP_DIALECT_SMTP = 1, SMTP_DIALECT_LMTP = 2 };

/* Where a session is; see smtp.def. */
enum smtp_state {
	SMTP_STATE_NEW = 1,
	SMTP_STATE_IDLE = 2,
	SMTP_STATE_MAIL = 4,
	SMTP_STATE_RCPT = 8,
	SMTP_STATE_BDAT = 16,
};

/* Values as in messages.def. */
enum smtp_body { SMTP_BODY_7BIT = 0, SMTP_BODY_8BITMIME = 1 };
enum smtp_ret { SMTP_RET_NONE = 0, SMTP_RET_FULL = 1, SMTP_RET_HDRS = 2 };
enum smtp_notify {
	SMTP_NOTIFY_NEVER = 1,
	SMTP_NOTIFY_SUCCESS = 2,
	SMTP_NOTIFY_FAILURE = 4,
	SMTP_NOTIFY_DELAY = 8
};

struct smtp_mail {
	struct addr_spec sender; /* empty: the null reverse-path */
	uint64_t size;		 /* RFC 1870, 0: not declared */
	enum smtp_body body;	 /* RFC 6152 */
	enum smtp_ret ret;	 /* RFC 3461 */
	str envid;		 /* RFC 3461: xtext as written */
	bool smtputf8;		 /* RFC 6531 */
};

struct smtp_rcpt {
	struct addr_spec recipient; /* no domain: postmaster */
	unsigned notify;	    /* enum smtp_notify, 0: not said */
	str orcpt;		    /* "rfc822;xtext" as written */
};

struct smtp_command {
	enum smtp_verb verb; /* set also with a fault, where it was recognised */
	str argument; /* HELO: the name; VRFY, EXPN, HELP, NOOP: the text; AUTH: the mechanism */
	struct smtp_mail mail;
	struct smtp_rcpt rcpt;
	bool has_initial; /* AUTH */
	str initial;	  /* AUTH: base64, "=" for an empty one */
	uint64_t chunk;	  /* BDAT: bytes that follow */
	bool is_last;
};

struct smtp_fault_info {
	uint16_t code;
	const char *status, *text;
};
const struct smtp_fault_info *smtp_fault_info(enum smtp_fault f);

/* `utf8`: the transaction under way was opened with SMTPUTF8. */
MUST_USE enum smtp_fault smtp_command_parse(str line, enum smtp_dialect dialect, bool utf8,
					    struct arena *a, struct smtp_command *out);

/* Is the verb allowed in this state? When not, smtp_sequence_text says in words what is missing. */
bool smtp_is_allowed(enum smtp_verb verb, enum smtp_state state);
const char *smtp_sequence_text(enum smtp_verb verb, enum smtp_state state);

/* How a command is written, for HELP and for 501 replies; "" for those we do not do. */
const char *smtp_verb_help(enum smtp_verb verb);
const char *smtp_verb_name(enum smtp_verb verb);
bool smtp_verb_is_known(enum smtp_verb verb, enum smtp_dialect dialect);

/* RFC 3461 4: is s xtext? */
bool smtp_is_xtext(str s);

#endif
