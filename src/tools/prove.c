/* `posthorn prove`: does this disk keep what it says it has kept?
 *
 *	posthorn prove DIR --witness FILE [--seconds N]    writes until it is killed, or so long
 *	posthorn prove DIR --witness - | ssh other 'cat > FILE'
 *	posthorn prove DIR --check --witness FILE          afterwards
 *
 * A store of its own is made in DIR/posthorn-prove, by the engine that stores mail: the same
 * frames, the same fdatasync, preallocation, renames, body files and index. Messages are appended,
 * flagged and expunged, many at once. When the engine says that a change is durable, a line goes to
 * the witness, which must not lie on the disk that is tried: a file on another one, or a pipe to
 * another machine. Then the power is cut. What the witness has, the store must have, byte for byte;
 * what it has begun and not been told of may be there or not.
 *
 * The witness: "posthorn-prove 1 NUMBER", then a line each of "put SEQUENCE ACCOUNT UID",
 * "flag SEQUENCE", "going SEQUENCE" (before an expunge is asked for) and "gone SEQUENCE". The text
 * of a message is a function of NUMBER and its sequence.
 *
 * Exit status of the check: 0 the disk kept all, 5 it did not.
 */
#include "base/os.h"
#include "store/body.h"
#include "store/engine.h"
#include "tools/tool.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	PROVE_LIED = 5,
	ACCOUNTS = 4,
	MAILBOX = 1, /* INBOX */
	BATCH_MAX = 32,
	TEXT_MAX = 1500 * 1024,
	SEQUENCES_MAX = 64 * 1024 * 1024,
	WITNESS_MAX = 1024 * 1024 * 1024,
	CHECKPOINT_EVERY = 50, /* batches */
	SHOWN_MAX = 20,
};
#define FOLDER "posthorn-prove"

struct sequence {
	uint32_t uid;
	uint8_t account; /* 0: not put, or not acknowledged */
	bool is_flagged, is_going, is_gone, was_found;
};

struct prove {
	struct tool *tool;
	const char *path; /* of our folder */
	struct log log;
	struct store_options options;
	struct store *store;
	int dir, witness;
	bool syncs_witness;
	uint64_t number, next; /* of this proof; the next sequence */
	uint64_t random;
	struct sequence *sequences;
	size_t room;
	char *text;
	enum err failed;
	uint64_t acknowledged, lost, wrong, shown;
};

/* One change under way. */
struct change {
	struct prove *prove;
	uint64_t sequence;
	uint8_t account;
	const char *word;
};

/* xorshift64*: anything that is the same each time. */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1du;
}

/* The text of a message begins with its sequence. Most are of a few KB; one in 64 has a file of its
 * own. */
static str text_of(struct prove *p, uint64_t sequence)
{
	uint64_t state = p->number ^ (sequence + 1) * 0x9e3779b97f4a7c15u, size;

	if (!state)
		state = 1;
	size = 64 + draw(&state) % 12000;
	if (draw(&state) % 64 == 0)
		size = 1024 * 1024 + draw(&state) % (TEXT_MAX - 1024 * 1024 - 8);
	put_le64(p->text, sequence);
	for (size_t at = 8; at < size; at += 8)
		put_le64(p->text + at, draw(&state));
	return str_of(p->text, (size_t)size);
}

static struct sequence *sequence_at(struct prove *p, uint64_t sequence)
{
	size_t room = p->room ? p->room : 4096;

	if (sequence < p->room)
		return &p->sequences[sequence];
	while (room <= sequence && room < SEQUENCES_MAX)
		room *= 2;
	if (sequence < room) {
		struct sequence *grown = realloc(p->sequences, room * sizeof(*grown));

		if (grown) {
			memset(grown + p->room, 0, (room - p->room) * sizeof(*grown));
			p->sequences = grown;
			p->room = room;
			return &p->sequences[sequence];
		}
	}
	p->failed = ERR_NO_MEMORY;
	return NULL;
}

/* ---- writing ---- */

static void witness_write(struct prove *p, str line)
{
	enum err err = os_write_all(p->witness, line);

	if (err && !p->failed)
		p->failed = err;
}

static void on_done(void *arg, enum err err, const struct msg_st_commit_reply *reply)
{
	struct change *c = arg;
	struct prove *p = c->prove;
	struct sequence *s = sequence_at(p, c->sequence);
	struct rec_uid_range uid = { 0 };
	char line[80];
	str to = err ? STR_EMPTY : reply->to;
	int n;

	if (err || !s) {
		p->failed = err ? err : p->failed;
		free(c);
		return;
	}
	if (c->account) {
		if (rec_uid_range_get(&to, &uid))
			p->failed = ERR_PROTOCOL;
		s->uid = uid.first;
		s->account = c->account;
		n = snprintf(line, sizeof(line), "put %llu %u %u\n",
			     (unsigned long long)c->sequence, c->account, s->uid);
	} else {
		n = snprintf(line, sizeof(line), "%s %llu\n", c->word,
			     (unsigned long long)c->sequence);
	}
	p->acknowledged++;
	witness_write(p, str_of(line, (size_t)n));
	free(c);
}

static struct change *change_new(struct prove *p, uint64_t sequence, uint8_t account,
				 const char *word)
{
	struct change *c = malloc(sizeof(*c));

	if (c)
		*c = (struct change){ p, sequence, account, word };
	else
		p->failed = ERR_NO_MEMORY;
	return c;
}

static void put(struct prove *p)
{
	uint64_t sequence = p->next++;
	uint8_t account = (uint8_t)(1 + draw(&p->random) % ACCOUNTS);
	str text = text_of(p, sequence);
	struct msg_st_append in = {
		.mailbox = MAILBOX, .received_us = os_wall_us(), .size = text.n, .inline_body = text
	};
	struct change *c = change_new(p, sequence, account, "put");
	enum err err = c ? store_append(p->store, account, &in, on_done, c) : ERR_NO_MEMORY;

	if (err) {
		p->failed = err;
		free(c);
	}
}

/* Of a message that is durable and has been left alone so far. */
static void alter(struct prove *p)
{
	uint64_t sequence = draw(&p->random) % p->next;
	struct sequence *s = sequence_at(p, sequence);
	bool expunges = draw(&p->random) % 2;
	struct msg_st_commit in = { .op = expunges ? STORE_OP_EXPUNGE : STORE_OP_FLAGS,
				    .mailbox = MAILBOX,
				    .mode = 1,
				    .flags0 = MSG_FLAG_FLAGGED };
	struct change *c;
	char line[80];
	struct buf uids;
	enum err err;

	if (!s || !s->account || s->is_going || s->is_flagged ||
	    !(c = change_new(p, sequence, 0, expunges ? "gone" : "flag")))
		return;
	if (expunges) {
		s->is_going = true;
		witness_write(p, str_of(line, (size_t)snprintf(line, sizeof(line), "going %llu\n",
							       (unsigned long long)sequence)));
	} else {
		s->is_flagged = true;
	}
	buf_init(&uids, 64);
	rec_uid_range_put(&uids, &(struct rec_uid_range){ s->uid, s->uid });
	in.uids = buf_str(&uids);
	err = store_commit(p->store, s->account, &in, on_done, c);
	buf_free(&uids);
	if (err) {
		p->failed = err;
		free(c);
	}
}

static void settle(struct prove *p)
{
	enum err err = store_settle(p->store);

	if (!err && p->syncs_witness)
		err = os_fdatasync(p->witness);
	if (err && !p->failed)
		p->failed = err;
}

static void on_bound(void *arg, enum err err, const struct msg_st_commit_reply *reply UNUSED)
{
	if (err)
		((struct prove *)arg)->failed = err;
}

static void accounts_make(struct prove *p)
{
	for (uint64_t account = 1; account <= ACCOUNTS && !p->failed; account++) {
		enum err err =
			store_bind(p->store, account, S("prove@example.test"), 0, on_bound, p);

		if (err)
			p->failed = err;
	}
	settle(p);
}

static int write_until(struct prove *p, uint64_t seconds)
{
	int64_t until = os_monotonic_ns() + (int64_t)seconds * 1000000000;

	accounts_make(p);
	for (uint64_t batch = 1; !p->failed; batch++) {
		uint64_t n = 1 + draw(&p->random) % BATCH_MAX;

		while (n-- > 0 && !p->failed) {
			if (p->next && draw(&p->random) % 3 == 0)
				alter(p);
			else
				put(p);
		}
		settle(p);
		if (!p->failed && batch % CHECKPOINT_EVERY == 0)
			p->failed = store_checkpoint(p->store);
		if (seconds && os_monotonic_ns() > until)
			break;
	}
	if (p->failed) {
		tool_complain("%s: %s; what was acknowledged until now is in the witness", p->path,
			      err_text(p->failed));
		return TOOL_FAILED;
	}
	return TOOL_DONE;
}

/* ---- the witness ---- */

static enum err witness_line(struct prove *p, str line)
{
	str word = str_cut(&line, ' '), first = str_cut(&line, ' '), second = str_cut(&line, ' ');
	uint64_t sequence, account, uid;
	struct sequence *s;

	if (str_to_u64(first, SEQUENCES_MAX - 1, &sequence) || !(s = sequence_at(p, sequence)))
		return ERR_SYNTAX;
	p->next = MAX(p->next, sequence + 1);
	if (str_eq(word, S("put"))) {
		if (str_to_u64(second, ACCOUNTS, &account) || !account ||
		    str_to_u64(line, UINT32_MAX, &uid))
			return ERR_SYNTAX;
		s->account = (uint8_t)account;
		s->uid = (uint32_t)uid;
	} else if (str_eq(word, S("flag"))) {
		s->is_flagged = true;
	} else if (str_eq(word, S("going"))) {
		s->is_going = true;
		return ERR_OK;
	} else if (str_eq(word, S("gone"))) {
		s->is_gone = true;
	} else {
		return ERR_SYNTAX;
	}
	p->acknowledged++;
	return ERR_OK;
}

/* A last line without its end is one that the cut left. */
static enum err witness_parse(struct prove *p, str rest)
{
	str line = str_cut(&rest, '\n'), head = S("posthorn-prove 1 ");
	enum err err = str_starts(line, head)
			       ? str_to_u64(str_from(line, head.n), UINT64_MAX, &p->number)
			       : ERR_SYNTAX;

	while (!err && str_find_char(rest, '\n') != STR_NONE)
		err = witness_line(p, str_cut(&rest, '\n'));
	return err;
}

static enum err witness_read(struct prove *p, const char *name)
{
	struct os_stat st;
	struct buf b;
	char *bytes;
	int fd;
	enum err err = os_open(-1, name, OS_READ, &fd);

	if (err)
		return err;
	buf_init(&b, WITNESS_MAX);
	err = os_fstat(fd, &st);
	bytes = err ? NULL : buf_reserve(&b, (size_t)st.size + 1);
	if (!err && !bytes)
		err = ERR_TOO_LONG;
	if (!err)
		err = os_pread_all(fd, bytes, (size_t)st.size, 0);
	if (!err)
		err = witness_parse(p, str_of(bytes, (size_t)st.size));
	os_close(fd);
	buf_free(&b);
	return err;
}

/* A new proof, or one that goes on: DIR has its number, and the witness must be the same one's. */
static int witness_open(struct prove *p, str name, bool is_new)
{
	char line[80];
	enum err err;

	if (str_eq(name, S("-"))) {
		p->witness = 1;
		err = is_new ? ERR_OK : ERR_EXISTS;
	} else {
		err = is_new ? ERR_OK : witness_read(p, name.p);
		if (!err)
			err = os_open(-1, name.p,
				      OS_WRITE | OS_CREATE | (is_new ? OS_EXCLUSIVE : OS_APPEND),
				      &p->witness);
		p->syncs_witness = true;
	}
	if (err) {
		tool_complain("%.*s: %s", STR_ARGS(name),
			      err == ERR_EXISTS	  ? "begin with an empty DIR and a new witness"
			      : err == ERR_SYNTAX ? "is no witness of posthorn prove"
						  : err_text(err));
		return TOOL_FAILED;
	}
	if (is_new) {
		p->number = os_random_u64() | 1;
		witness_write(p, str_of(line, (size_t)snprintf(line, sizeof(line),
							       "posthorn-prove 1 %llu\n",
							       (unsigned long long)p->number)));
	}
	/* What was under way when it was killed may be there: its numbers are not used again. */
	p->next += is_new ? 0 : 1000;
	return TOOL_DONE;
}

/* ---- checking ---- */

static void wrong(struct prove *p, uint64_t sequence, const char *what)
{
	if (p->shown++ < SHOWN_MAX)
		tool_complain("change %llu: %s", (unsigned long long)sequence, what);
}

static bool text_is_right(struct prove *p, const struct rec_row *row, uint64_t *sequence)
{
	struct body_cipher *cipher = body_cipher_new();
	struct rec_body_location at;
	str location = row->location;
	char *got = malloc(TEXT_MAX);
	bool is_right = false;
	int fd = -1;

	*sequence = UINT64_MAX;
	if (cipher && got && !rec_body_location_get(&location, &at) && at.size >= 8 &&
	    at.size <= TEXT_MAX && !store_segment(p->store, at.segment, row->body, &fd) &&
	    !body_read(cipher, fd, &at, 0, (size_t)at.size, got)) {
		*sequence = get_le64(got);
		is_right = str_eq(text_of(p, *sequence), str_of(got, (size_t)at.size));
	}
	os_close(fd);
	free(got);
	body_cipher_free(cipher);
	return is_right;
}

static void row_check(struct prove *p, uint64_t account, const struct rec_row *row)
{
	uint64_t sequence;
	bool is_right = text_is_right(p, row, &sequence);
	struct sequence *s = sequence < p->next ? &p->sequences[sequence] : NULL;

	if (!is_right) {
		p->wrong++;
		wrong(p, sequence, "its text is not what was written");
	} else if (s && s->account == account && s->uid == row->uid) {
		s->was_found = true;
		if (s->is_gone) {
			p->lost++;
			wrong(p, sequence, "was expunged, and is there again");
		} else if (s->is_flagged && !(row->flags0 & MSG_FLAG_FLAGGED)) {
			p->lost++;
			wrong(p, sequence, "its flag is lost");
		}
	}
}

static enum err account_check(struct prove *p, uint64_t account)
{
	struct msg_st_rows in = {
		.mailbox = MAILBOX, .uid_from = 1, .uid_to = UINT32_MAX, .columns = ROW_LOCATION
	};
	struct msg_st_rows_reply out = { .next_uid = 0 };
	struct store_reply reply;
	struct rec_row row;
	enum err err;

	store_reply_init(&reply);
	do {
		err = store_rows(p->store, account, &in, &reply, &out);
		while (!err && rec_row_get(&out.rows, &row) == ERR_OK)
			row_check(p, account, &row);
		in.uid_from = out.next_uid;
	} while (!err && out.next_uid);
	store_reply_free(&reply);
	return err == ERR_NOT_FOUND ? ERR_OK
				    : err; /* then all of it is missing, which is counted */
}

static int verdict(struct prove *p, enum err err)
{
	char text[400];

	for (uint64_t i = 0; i < p->next && !err; i++) {
		const struct sequence *s = &p->sequences[i];

		if (!s->account || s->was_found || s->is_going || s->is_gone)
			continue;
		p->lost++;
		wrong(p, i, "is not there");
	}
	if (err && p->acknowledged) {
		tool_complain("the store cannot be read: %s", err_text(err));
		p->lost = p->acknowledged;
	}
	if (!p->lost && !p->wrong) {
		tool_print(str_of(text,
				  (size_t)snprintf(text, sizeof(text),
						   "The disk kept its promise: %llu acknowledged "
						   "changes, all of them there.\n",
						   (unsigned long long)p->acknowledged)));
		return TOOL_DONE;
	}
	tool_print(str_of(
		text,
		(size_t)snprintf(text, sizeof(text),
				 "The disk did NOT keep its promise: of %llu acknowledged changes, "
				 "%llu are lost and %llu messages have a wrong text.\nIt said that "
				 "data was on the disk, and it was not. Do not keep mail there, or "
				 "turn its write cache off and try again.\n",
				 (unsigned long long)p->acknowledged, (unsigned long long)p->lost,
				 (unsigned long long)p->wrong)));
	return PROVE_LIED;
}

static int check(struct prove *p, enum err err)
{
	if (!err)
		err = store_prepare(&p->options);
	if (!err)
		err = store_open(&p->options, &p->store);
	for (uint64_t account = 1; account <= ACCOUNTS && !err; account++)
		err = account_check(p, account);
	if (!err)
		store_steady(p->store);
	return verdict(p, err);
}

/* ---- the command ---- */

/* Our folder's own name must last, too. */
static enum err folder_sync(const char *path)
{
	int fd;
	enum err err = path ? os_open(-1, path, OS_READ | OS_DIRECTORY, &fd) : ERR_NO_MEMORY;

	if (err)
		return err;
	err = os_fsync(fd);
	os_close(fd);
	return err;
}

static enum err folder_open(struct prove *p, str where, bool *is_new)
{
	str path = arena_printf(p->tool->arena, "%.*s/" FOLDER, STR_ARGS(where));
	enum err err = path.p ? os_mkdir(-1, path.p, 0700) : ERR_NO_MEMORY;

	p->path = path.p;
	*is_new = err == ERR_OK;
	if (!err)
		err = folder_sync(arena_str(p->tool->arena, where).p);
	if (err && err != ERR_EXISTS)
		return err;
	err = os_open(-1, path.p, OS_READ | OS_DIRECTORY, &p->dir);
	p->options = (struct store_options){
		.dir = p->dir, .path = p->path, .log = &p->log, .min_free = 1
	};
	return err;
}

static int run_writes(struct prove *p, str where, str witness, uint64_t seconds)
{
	bool is_new;
	int status;
	enum err err = folder_open(p, where, &is_new);

	if (!err && (status = witness_open(p, witness, is_new)))
		return status;
	if (!err)
		err = store_prepare(&p->options);
	if (!err)
		err = store_open(&p->options, &p->store);
	if (err) {
		tool_complain("%.*s: %s", STR_ARGS(where), err_text(err));
		return TOOL_FAILED;
	}
	store_steady(p->store);
	p->random = os_random_u64() | 1;
	return write_until(p, seconds);
}

static int run_check(struct prove *p, str where, str witness)
{
	bool is_new;
	enum err err = witness_read(p, witness.p);

	if (err) {
		tool_complain("%.*s: %s", STR_ARGS(witness),
			      err == ERR_SYNTAX ? "is no witness of posthorn prove"
						: err_text(err));
		return TOOL_FAILED;
	}
	err = folder_open(p, where, &is_new);
	if (err && err != ERR_NOT_FOUND) {
		tool_complain("%.*s: %s", STR_ARGS(where), err_text(err));
		return TOOL_FAILED;
	}
	return check(p, err);
}

int command_prove(struct tool *t)
{
	struct prove p = { .tool = t, .dir = -1, .witness = -1 };
	str witness = STR_EMPTY, where = STR_EMPTY;
	bool checks = false, has_seconds = false;
	uint64_t seconds = 0;
	int status = TOOL_FAILED;

	for (size_t i = 1; i < t->n; i++) {
		if (str_eq(t->args[i], S("--check")))
			checks = true;
		else if (str_eq(t->args[i], S("--witness")) && i + 1 < t->n)
			witness = t->args[++i];
		else if (str_eq(t->args[i], S("--seconds")) && i + 1 < t->n &&
			 !str_to_u64(t->args[++i], 1000000, &seconds) && seconds)
			has_seconds = true;
		else if (where.n == 0 && !str_starts(t->args[i], S("-")))
			where = t->args[i];
		else
			return tool_usage(t);
	}
	if (!where.n || !witness.n || (checks && (has_seconds || str_eq(witness, S("-")))))
		return tool_usage(t);
	log_init(&p.log, LOG_TO_STDERR, LOG_LEVEL_ERROR, "prove");
	p.text = malloc(TEXT_MAX);
	if (p.text)
		status = checks ? run_check(&p, where, witness)
				: run_writes(&p, where, witness, seconds);
	store_close(p.store);
	os_close(p.dir);
	if (p.witness > 2)
		os_close(p.witness);
	free(p.sequences);
	free(p.text);
	return status;
}
