/* The inside of a session, for the files that hold its commands. */
#ifndef IMAP_SESSION_PRIV_H
#define IMAP_SESSION_PRIV_H

#include "imap/command.h"
#include "imap/input.h"
#include "imap/parked.h"
#include "imap/session.h"

struct imap_session {
	struct imap_account *account;
	struct conn *conn;
	imap_session_end_fn on_end;
	void *arg;

	struct imap_input input;
	struct buf first;    /* read by somebody else before us */
	str chunk;	     /* read from the connection, not yet handled */
	struct arena *arena; /* of the command; NULL while parked */
	struct buf out;	     /* one response at a time, before it goes to the connection */

	enum imap_state state;
	struct imap_selected selected; /* view is NULL unless one is */
	uint64_t own; /* MODSEQ of the change that this command made: no news to this client */
	uint32_t keywords_told; /* account->keyword_changes when FLAGS was last sent */
	bool is_idle;
	char idle_tag[IMAP_TAG_MAX];
	size_t idle_tag_size;

	const char *result; /* "OK", "NO", "BAD"; NULL: no tagged reply now */
	str text;
	uint32_t bad;
	bool is_ending, is_running, is_parked, was_woken, needs_resume;
	int64_t parked_at;
	struct buf resume; /* the parked record that is still to be restored */
	const char *stop_why;
	struct append *append; /* one is being received; append.c */
};

/* After a handler: what changed, then the tagged result. */
MUST_USE enum err imap_session_conclude(struct imap_session *s, str tag, bool may_expunge);

/* How the command ends: the tagged reply, sent after the news. */
void imap_ok(struct imap_session *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
void imap_no(struct imap_session *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
void imap_bad(struct imap_session *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The NO for an error, by the table in reply.c. */
void imap_failed(struct imap_session *s, enum err err);

/* A mailbox name as the client reads it: modified UTF-7, quoted where it must be. */
void imap_write_mailbox(struct buf *out, str name);
/* "* FLAGS (...)" and PERMANENTFLAGS. */
void imap_write_flag_list(struct imap_session *s);
/* "* 5 FETCH (FLAGS (\Seen))", with the UID where asked for. */
void imap_write_fetch_flags(struct imap_session *s, uint32_t seq, bool with_uid, struct buf *out);
/* Sends s->out. */
MUST_USE enum err imap_send(struct imap_session *s);
/* conn_write_wait, the deadline moved on: a client that takes long for much is not silent. */
MUST_USE enum err imap_write_wait(struct imap_session *s, str bytes);
/* EXPUNGE, EXISTS, RECENT and FETCH for what changed. */
MUST_USE enum err imap_send_news(struct imap_session *s, bool may_expunge);
/* Bytes of the client, at least one. Flushes before it waits. */
MUST_USE enum err imap_read(struct imap_session *s, size_t max, str *bytes);
void imap_session_close_mailbox(struct imap_session *s);

/* A commit in the store; the reply lives in s->arena. */
MUST_USE enum err imap_commit(struct imap_session *s, const struct msg_st_commit *m,
			      struct msg_st_commit_reply *reply);
/* The UIDs of a set of sequence numbers, of messages that are not gone, as RECORD uid_range, in
 * pieces of at most IMAP_RANGES_MAX ranges and IMAP_UIDS_MAX messages, which one commit of the
 * store takes. */
enum { IMAP_RANGES_MAX = 2000, IMAP_UIDS_MAX = 20000 };
struct imap_uids {
	struct buf records;
	size_t ranges, count;
	uint32_t first, last;
};
void imap_uids_begin(struct imap_uids *u);
void imap_uids_add(struct imap_uids *u, uint32_t uid);
str imap_uids_done(struct imap_uids *u);
bool imap_uids_are_full(const struct imap_uids *u);
void imap_uids_clear(struct imap_uids *u);
void imap_uids_free(struct imap_uids *u);
/* Adds flags to messages in one commit and brings the view up to date (FETCH BODY[] sets \Seen). */
MUST_USE enum err imap_commit_flags(struct imap_session *s, str uids, enum imap_flags_mode mode,
				    const uint64_t flags[2]);

/* Calls `act` with the UIDs of the messages of a set (sequence numbers) that have the flag (0:
 * all), in pieces that one commit of the store takes. */
typedef enum err (*imap_piece_fn)(struct imap_session *s, void *arg, str uids);
MUST_USE enum err imap_for_pieces(struct imap_session *s, const struct imap_set *set,
				  uint64_t wanted_flag, imap_piece_fn act, void *arg);
/* Is the view exactly this one change behind? Then the caller applies it; otherwise it will be
 * asked for again. */
bool imap_follows(struct imap_session *s, const struct msg_st_commit_reply *reply);
/* The messages are gone from the selected mailbox; its other connections are told. */
void imap_apply_expunge(struct imap_session *s, str uids);
/* The command's set in sequence numbers; false: it was answered with BAD or NO. */
bool imap_resolve_set(struct imap_session *s, const struct imap_command *c, struct imap_set *set);
/* True where the mailbox was opened with EXAMINE: it was answered with NO. */
bool imap_refuse_read_only(struct imap_session *s);
/* Expunges messages that this command has made, since it fails: all or none. */
void imap_undo(struct imap_session *s, uint32_t mailbox, const struct imap_set *uids);

/* The next message of an APPEND: s->input.text and message_size say what it is. */
MUST_USE enum err imap_append_message(struct imap_session *s);
/* Its last line has come: waits for the store and answers. */
MUST_USE enum err imap_append_finish(struct imap_session *s);
void imap_append_wrong(struct imap_session *s, const char *what);
/* The connection ended in the middle: none of its messages stays. In a fiber. */
void imap_append_abort(struct imap_session *s);
void imap_append_end(struct imap_session *s);

#define COMMAND(name, word, grammar, states, flags) \
	void imap_do_##word(struct imap_session *s, const struct imap_command *c);
#include "imap/imap.def"
#undef COMMAND

#endif
