/* `posthorn fsck`: is everything that is stored as it was written? And `--repair`: what is damaged
 * goes aside, all the rest stays.
 *
 *	posthorn fsck             of a stopped server: reads all, changes nothing
 *	posthorn fsck --online    while it runs: what the last checkpoint covers
 *	posthorn fsck --repair    of a stopped server; then looks again
 *	posthorn fsck --json      with any of them: for programs
 *
 * Exit status: 0 all is as it should be; 5 something is damaged, and was left so; 6 something was
 * damaged, and what is there now is whole; 1 it could not be looked at.
 *
 * The index is first read by a child: LMDB maps its file, and a page that is bad enough kills
 * whoever reads it. The child's death is a verdict like another.
 */
#include "base/os.h"
#include "store/check.h"
#include "tools/tool.h"

#include <stdio.h>

enum { FSCK_DAMAGED = 5, FSCK_REPAIRED = 6, IDENTITY_MAX = 256, LINE_MAX_SIZE = 8192 };

struct fsck {
	struct tool *tool;
	const char *path;
	int dir;
	bool is_online, repair, json;
	unsigned told;	/* findings in the current list of JSON */
	int verdict_fd; /* in the child */
};

/* ---- words ---- */

static void add_json_number(struct buf *b, const char *name, uint64_t n)
{
	if (n)
		buf_printf(b, ",\"%s\":%llu", name, (unsigned long long)n);
}

static const char *level_word(enum check_level level)
{
	return level == CHECK_LOSS ? "loss" : level == CHECK_DAMAGE ? "damage" : "note";
}

static void add_finding_json(struct buf *b, const struct check_finding *f)
{
	buf_printf(b, "{\"level\":\"%s\",\"what\":\"%s\"", level_word(f->level), f->what);
	if (f->file.n)
		buf_add_json(b, "file", f->file);
	if (f->to || f->from)
		buf_printf(b, ",\"from\":%llu,\"to\":%llu", (unsigned long long)f->from,
			   (unsigned long long)f->to);
	add_json_number(b, "account", f->account);
	if (f->address.n)
		buf_add_json(b, "address", f->address);
	if (f->mailbox.n)
		buf_add_json(b, "mailbox", f->mailbox);
	add_json_number(b, "uid", f->uid);
	add_json_number(b, "body", f->body);
	add_json_number(b, "queue", f->queue);
	buf_add_json(b, "detail", f->detail);
	buf_add_char(b, '}');
}

/* Names of mailboxes come from outside: nothing in them may steer a terminal. */
static void add_clean(struct buf *b, str s)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_char(b, (unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f ? '?' : s.p[i]);
}

static void add_finding(struct buf *b, const struct check_finding *f)
{
	buf_printf(b, "%-6s %s", level_word(f->level), f->what);
	if (f->file.n)
		buf_printf(b, " %.*s", STR_ARGS(f->file));
	if (f->to)
		buf_printf(b, " bytes %llu to %llu", (unsigned long long)f->from,
			   (unsigned long long)f->to);
	else if (f->from)
		buf_printf(b, " from byte %llu", (unsigned long long)f->from);
	if (f->address.n) {
		buf_add_char(b, ' ');
		add_clean(b, f->address);
	} else if (f->account) {
		buf_printf(b, " account %llu", (unsigned long long)f->account);
	}
	if (f->mailbox.n) {
		buf_add(b, S(" \""));
		add_clean(b, f->mailbox);
		buf_add_char(b, '"');
	}
	if (f->uid)
		buf_printf(b, " UID %u", f->uid);
	if (f->queue)
		buf_printf(b, " queue %llu", (unsigned long long)f->queue);
	if (f->body)
		buf_printf(b, " body %llu", (unsigned long long)f->body);
	buf_printf(b, ": %.*s\n", STR_ARGS(f->detail));
}

static void on_found(void *arg, const struct check_finding *f)
{
	struct fsck *k = arg;
	struct buf b;

	buf_init(&b, LINE_MAX_SIZE);
	if (k->json) {
		buf_add(&b, k->told++ ? S(",\n") : S("\n"));
		add_finding_json(&b, f);
	} else {
		add_finding(&b, f);
	}
	tool_print(buf_str(&b));
	buf_free(&b);
}

static const char *bool_word(bool b)
{
	return b ? "true" : "false";
}

static void result_json(const struct check_result *r)
{
	struct buf b;

	buf_init(&b, LINE_MAX_SIZE);
	buf_printf(&b,
		   "],\"segments\":%llu,\"log_bytes\":%llu,\"frames\":%llu,\"records\":%llu,"
		   "\"accounts\":%llu,\"mailboxes\":%llu,\"messages\":%llu,\"bodies\":%llu,"
		   "\"queue\":%llu,",
		   (unsigned long long)r->segments, (unsigned long long)r->log_bytes,
		   (unsigned long long)r->frames, (unsigned long long)r->records,
		   (unsigned long long)r->accounts, (unsigned long long)r->mailboxes,
		   (unsigned long long)r->messages, (unsigned long long)r->bodies,
		   (unsigned long long)r->queue);
	buf_printf(&b,
		   "\"has_index\":%s,\"index_is_sound\":%s,\"index_matches\":%s,\"notes\":%u,"
		   "\"damages\":%u,\"losses\":%u,\"rewritten\":%llu",
		   bool_word(r->has_index), bool_word(r->index_is_sound),
		   bool_word(r->index_matches), r->notes, r->damages, r->losses,
		   (unsigned long long)r->rewritten);
	buf_add_json(&b, "aside", str_from_c(r->aside));
	buf_add_char(&b, '}');
	tool_print(buf_str(&b));
	buf_free(&b);
}

static void result_text(const struct fsck *k, const struct check_result *r)
{
	struct buf b;

	buf_init(&b, LINE_MAX_SIZE);
	buf_printf(&b,
		   "Read: %llu segments of %llu MB, %llu frames, %llu records; %llu accounts, %llu "
		   "mailboxes, %llu messages, %llu bodies, %llu in the queue.\n",
		   (unsigned long long)r->segments, (unsigned long long)r->log_bytes / 1000000,
		   (unsigned long long)r->frames, (unsigned long long)r->records,
		   (unsigned long long)r->accounts, (unsigned long long)r->mailboxes,
		   (unsigned long long)r->messages, (unsigned long long)r->bodies,
		   (unsigned long long)r->queue);
	if (r->index_is_sound)
		buf_printf(&b, "The index %s its rebuild from the log.\n",
			   r->index_matches ? "equals" : "does not equal");
	if (r->aside[0])
		buf_printf(&b, "What was damaged lies in %s/%s.\n", k->path, r->aside);
	if (!r->damages && !r->losses)
		buf_add(&b, S("All is as it was written.\n"));
	else
		buf_printf(&b, "%u damaged, %u lost.\n", r->damages, r->losses);
	tool_print(buf_str(&b));
	buf_free(&b);
}

/* ---- looking ---- */

static void index_child(void *arg)
{
	struct fsck *k = arg;
	struct buf identity;
	char verdict;
	enum err err;

	os_close(
		2); /* a sanitizer's or libc's last words about a damaged page are not for people */
	buf_init(&identity, IDENTITY_MAX);
	err = store_check_index(k->dir, k->path, &identity);
	verdict = err == ERR_OK ? 'g' : 'b';
	err = os_write_all(k->verdict_fd, str_of(&verdict, 1));
	if (!err)
		err = os_write_all(k->verdict_fd, buf_str(&identity));
	buf_free(&identity);
	os_exit(err ? 1 : 0);
}

/* What the child wrote before it ended, one way or another. */
static enum err verdict_read(int fd, char *p, size_t room, size_t *n)
{
	enum err err = ERR_OK;

	*n = 0;
	while (!err && *n < room) {
		size_t got = 0;

		err = os_wait_readable(fd, -1);
		if (!err)
			err = os_read(fd, p + *n, room - *n, &got);
		*n += got;
		if (err == ERR_AGAIN)
			err = ERR_OK;
	}
	return err == ERR_EOF || err == ERR_CLOSED ? ERR_OK : err;
}

static enum err index_judge(struct fsck *k, struct check_options *o, char answer[IDENTITY_MAX])
{
	int fd[2], pid;
	size_t n;
	enum err err = os_socketpair(false, fd);

	if (err)
		return err;
	k->verdict_fd = fd[1];
	err = os_fork(index_child, k, &pid);
	os_close(fd[1]);
	if (!err)
		err = verdict_read(fd[0], answer, IDENTITY_MAX, &n);
	os_close(fd[0]);
	if (err)
		return err;
	o->has_index_verdict = true;
	o->index_is_sound = n > 0 && answer[0] == 'g';
	o->index_identity = n > 1 ? str_of(answer + 1, n - 1) : STR_EMPTY;
	return ERR_OK;
}

static enum err look(struct fsck *k, bool repair, struct check_result *r)
{
	struct check_options o = { .dir = k->dir,
				   .path = k->path,
				   .is_online = k->is_online,
				   .repair = repair,
				   .found = on_found,
				   .arg = k };
	char answer[IDENTITY_MAX];
	enum err err = index_judge(k, &o, answer);

	k->told = 0;
	if (k->json)
		tool_print(S("{\"findings\":["));
	if (!err)
		err = store_check(&o, r);
	if (k->json)
		result_json(r);
	else if (!err)
		result_text(k, r);
	return err;
}

static int complain(const struct fsck *k, enum err err)
{
	if (err == ERR_BUSY)
		tool_complain("the server runs: stop it first, or use --online");
	else if (err == ERR_NOT_FOUND)
		tool_complain("%s: there is no store", k->path);
	else if (err == ERR_AGAIN)
		tool_complain("the store was being compacted: try again");
	else if (err == ERR_UNSUPPORTED)
		tool_complain("%s: a later version of Posthorn wrote this", k->path);
	else if (err != ERR_DAMAGED)
		tool_complain("%s: %s", k->path, err_text(err));
	return err == ERR_DAMAGED ? FSCK_DAMAGED : TOOL_FAILED;
}

static int run(struct fsck *k)
{
	struct check_result first, second;
	enum err err;
	int status;

	if (k->json)
		tool_print(S("["));
	err = look(k, k->repair, &first);
	status = err ? complain(k, err) : first.damages || first.losses ? FSCK_DAMAGED : TOOL_DONE;
	if (!err && k->repair && status) {
		tool_print(k->json ? S(",\n") : S("\nAfter the repair:\n"));
		err = look(k, false, &second);
		if (err)
			status = complain(k, err);
		else if (!second.damages && !second.losses)
			status = FSCK_REPAIRED;
	}
	if (k->json)
		tool_print(S("]\n"));
	else if (status == FSCK_DAMAGED && !k->repair && !k->is_online && !err)
		tool_print(
			S("Nothing was changed. `posthorn fsck --repair` keeps all the rest.\n"));
	return status;
}

/* What root made there belongs to the store's user. */
static void give_back(const struct fsck *k, struct arena *a)
{
	static const char *const folders[] = { ".",	"log",	       "body",
					       "index", "index/check", "index/check/index" };
	struct os_stat owner, st;

	if (os_uid() != 0 || os_fstat(k->dir, &owner))
		return;
	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		size_t count = 0;
		str *names;
		int fd;

		if (os_open(k->dir, folders[i], OS_READ | OS_DIRECTORY, &fd))
			continue;
		if (os_list(fd, a, &names, &count))
			count = 0;
		for (size_t n = 0; n < count; n++) {
			if (!os_stat(fd, names[n].p, &st) && st.uid != owner.uid &&
			    os_chown(fd, names[n].p, owner.uid, owner.gid))
				tool_complain("%s/%s/%s cannot be given to its user", k->path,
					      folders[i], names[n].p);
		}
		os_close(fd);
	}
}

int command_fsck(struct tool *t)
{
	struct fsck k = { .tool = t, .dir = -1 };
	int status = tool_load_config(t);
	str path;
	enum err err;

	if (status)
		return status;
	for (size_t i = 1; i < t->n; i++) {
		if (str_eq(t->args[i], S("--online")))
			k.is_online = true;
		else if (str_eq(t->args[i], S("--repair")))
			k.repair = true;
		else if (str_eq(t->args[i], S("--json")))
			k.json = true;
		else
			return tool_usage(t);
	}
	if (k.is_online && k.repair)
		return tool_usage(t);
	path = arena_printf(t->arena, "%.*s/store", STR_ARGS(conf_str(t->conf, CONF_data_dir)));
	k.path = path.p;
	err = path.p ? os_open(-1, path.p, OS_READ | OS_DIRECTORY, &k.dir) : ERR_NO_MEMORY;
	if (err)
		return complain(&k, err);
	status = run(&k);
	give_back(&k, t->arena);
	os_close(k.dir);
	return status;
}
