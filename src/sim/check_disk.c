/* Looking at the server's disk while no server runs: on a copy of what a power cut left.
 *
 * The index must equal what a rebuild from the log gives, and every number that the store keeps
 * must equal a recount of what it counts. MODSEQ must have grown by what was acknowledged. This
 * runs as a process of the server's machine, through the store's own front door, so that recovery
 * is a part of what is checked. */
#include "sim/check_disk.h"

#include "base/os.h"
#include "store/engine.h"
#include "store/index_priv.h"
#include "store/records_priv.h"

#include <stdlib.h>

enum { DUMP_MAX = 512 * 1024 * 1024, VALUE_MAX = 70000 };

struct account_count {
	uint64_t id, modseq, used, bytes;
};

struct mailbox_count {
	uint64_t account;
	struct mailbox said; /* without its name */
	uint64_t messages, unseen, deleted, bytes;
};

struct body_count {
	uint64_t id, said, references;
};

struct counting {
	struct world *world;
	struct account_count *accounts;
	struct mailbox_count *mailboxes;
	struct body_count *bodies;
	size_t account_n, account_room, mailbox_n, mailbox_room, body_n, body_room;
	uint64_t queued, due, owed; /* records; entries by time; records that must have one */
};

static void *grown(void *p, size_t n, size_t *room, size_t size)
{
	if (n < *room)
		return p;
	*room = *room ? *room * 2 : 64;
	p = realloc(p, *room * size);
	if (!p)
		panic("sim: no memory");
	return p;
}

static void must_equal(struct counting *c, const char *what, uint64_t account, uint64_t id,
		       uint64_t said, uint64_t counted)
{
	if (said != counted)
		world_violation(c->world,
				"on the disk: %s of %llu/%llu is %llu, a recount says %llu", what,
				(unsigned long long)account, (unsigned long long)id,
				(unsigned long long)said, (unsigned long long)counted);
}

static struct account_count *account_of(struct counting *c, uint64_t id)
{
	for (size_t i = 0; i < c->account_n; i++)
		if (c->accounts[i].id == id)
			return &c->accounts[i];
	return NULL;
}

static struct mailbox_count *mailbox_of(struct counting *c, uint64_t account, uint64_t id)
{
	for (size_t i = 0; i < c->mailbox_n; i++)
		if (c->mailboxes[i].account == account && c->mailboxes[i].said.id == id)
			return &c->mailboxes[i];
	return NULL;
}

static struct body_count *body_of(struct counting *c, uint64_t id)
{
	for (size_t i = 0; i < c->body_n; i++)
		if (c->bodies[i].id == id)
			return &c->bodies[i];
	return NULL;
}

/* MODSEQ goes up by one at least for each change that was acknowledged, and never back. */
static void modseq_check(struct world *w, const struct account *on_disk)
{
	for (unsigned i = 0; i < WORLD_ACCOUNTS; i++) {
		struct account_model *a = &w->accounts[i];
		uint64_t least = a->modseq + (a->acked - a->modseq_acked);

		if (!str_case_eq(on_disk->address, str_from_c(a->address)))
			continue;
		if (on_disk->modseq < least)
			world_violation(w, "%s: MODSEQ is %llu, and was %llu before %llu changes",
					a->address, (unsigned long long)on_disk->modseq,
					(unsigned long long)a->modseq,
					(unsigned long long)(a->acked - a->modseq_acked));
		a->modseq = on_disk->modseq;
		a->modseq_acked = a->acked;
	}
}

static enum err on_account(struct counting *c, uint64_t id, str value)
{
	struct account a;
	enum err err = account_get(value, &a);

	if (err)
		return err;
	c->accounts = grown(c->accounts, c->account_n, &c->account_room, sizeof(*c->accounts));
	c->accounts[c->account_n++] = (struct account_count){ id, a.modseq, a.used, 0 };
	modseq_check(c->world, &a);
	return ERR_OK;
}

static enum err on_mailbox(struct counting *c, uint64_t account, uint64_t id, str value)
{
	struct mailbox_count m = { .account = account };
	enum err err = mailbox_get(value, u32_of(id), &m.said);

	if (err)
		return err;
	m.said.name = STR_EMPTY;
	c->mailboxes = grown(c->mailboxes, c->mailbox_n, &c->mailbox_room, sizeof(m));
	c->mailboxes[c->mailbox_n++] = m;
	return ERR_OK;
}

static enum err on_row(struct counting *c, const uint64_t numbers[3], str value)
{
	struct mailbox_count *m = mailbox_of(c, numbers[0], numbers[1]);
	struct account_count *a = account_of(c, numbers[0]);
	struct body_count *b;
	struct row r;
	enum err err = row_get(value, u32_of(numbers[2]), &r);

	if (err || !m || !a)
		return err ? err : ERR_DAMAGED;
	m->messages++;
	m->unseen += !(r.flags.w[0] & MSG_FLAG_SEEN);
	m->deleted += (r.flags.w[0] & MSG_FLAG_DELETED) != 0;
	m->bytes += r.size;
	a->bytes += r.size;
	if (r.uid >= m->said.uidnext || r.modseq > a->modseq)
		world_violation(c->world,
				"on the disk: row %u of %llu/%llu is above UIDNEXT or MODSEQ",
				r.uid, (unsigned long long)numbers[0],
				(unsigned long long)numbers[1]);
	b = body_of(c, r.body);
	if (b)
		b->references++;
	else
		world_violation(c->world, "on the disk: row %u of %llu/%llu has no body", r.uid,
				(unsigned long long)numbers[0], (unsigned long long)numbers[1]);
	return ERR_OK;
}

static enum err on_queue(struct counting *c, uint64_t id, str value)
{
	struct queue_item q;
	struct body_count *b;
	enum err err = queue_item_get(value, id, &q);

	if (err)
		return err;
	c->queued++;
	c->owed += q.state != QUEUE_HELD;
	world_queue_record(c->world, q.address);
	b = body_of(c, q.body);
	if (b)
		b->references++;
	else
		world_violation(c->world, "on the disk: queue record %llu has no body",
				(unsigned long long)id);
	return ERR_OK;
}

static enum err on_kept(struct counting *c, uint64_t account, str value)
{
	struct body_count *b;
	struct row r;
	str mailbox;
	enum err err = kept_get(value, &r, &mailbox);

	if (err)
		return err;
	b = body_of(c, r.body);
	if (b)
		b->references++;
	else
		world_violation(c->world, "on the disk: what account %llu expunged has no body",
				(unsigned long long)account);
	return ERR_OK;
}

static enum err on_record(struct counting *c, str key, str value)
{
	uint64_t n[3];
	struct body body;
	enum err err;

	if (key_parse(key, KIND_ACCOUNT, 1, n))
		return on_account(c, n[0], value);
	if (key_parse(key, KIND_MAILBOX, 2, n))
		return on_mailbox(c, n[0], n[1], value);
	if (key_parse(key, KIND_ROW, 3, n))
		return on_row(c, n, value);
	if (key_parse(key, KIND_QUEUE, 1, n))
		return on_queue(c, n[0], value);
	if (key_parse(key, KIND_KEPT, 2, n))
		return on_kept(c, n[0], value);
	if (key_parse(key, KIND_DUE, 2, n))
		c->due++;
	if (key_parse(key, KIND_BODY, 1, n)) {
		if ((err = body_get(value, &body)))
			return err;
		c->bodies = grown(c->bodies, c->body_n, &c->body_room, sizeof(*c->bodies));
		c->bodies[c->body_n++] = (struct body_count){ n[0], body.references, 0 };
	}
	return ERR_OK;
}

static str unhex(str hex, char *out)
{
	for (size_t i = 0; i + 1 < hex.n; i += 2)
		out[i / 2] = (char)(ascii_hex_value(hex.p[i]) << 4 | ascii_hex_value(hex.p[i + 1]));
	return str_of(out, hex.n / 2);
}

static void totals_check(struct counting *c)
{
	for (size_t i = 0; i < c->account_n; i++)
		must_equal(c, "the quota", c->accounts[i].id, 0, c->accounts[i].used,
			   c->accounts[i].bytes);
	for (size_t i = 0; i < c->mailbox_n; i++) {
		const struct mailbox_count *m = &c->mailboxes[i];

		must_equal(c, "the messages", m->account, m->said.id, m->said.messages,
			   m->messages);
		must_equal(c, "the unseen", m->account, m->said.id, m->said.unseen, m->unseen);
		must_equal(c, "the deleted", m->account, m->said.id, m->said.deleted, m->deleted);
		must_equal(c, "the bytes", m->account, m->said.id, m->said.bytes, m->bytes);
	}
	for (size_t i = 0; i < c->body_n; i++)
		must_equal(c, "the references to body", 0, c->bodies[i].id, c->bodies[i].said,
			   c->bodies[i].references);
	must_equal(c, "the queue by time", 0, 0, c->due, c->owed);
}

/* Bodies sort before what refers to them (B before Q and R), accounts before all. */
static void recount(struct world *w, str dump)
{
	struct counting c = { .world = w };
	char *key = malloc(VALUE_MAX), *value = malloc(2 * VALUE_MAX);
	enum err err = key && value ? ERR_OK : ERR_NO_MEMORY;

	world_queue_begin(w);
	while (!err && dump.n) {
		str line = str_cut(&dump, '\n'), k = str_cut(&line, ' ');

		err = on_record(&c, unhex(k, key), unhex(line, value));
	}
	if (err)
		world_violation(w, "on the disk: a record that cannot be read: %s", err_name(err));
	else
		totals_check(&c);
	if (!err)
		world_queue_end(w);
	free(key);
	free(value);
	free(c.accounts);
	free(c.mailboxes);
	free(c.bodies);
}

static enum err state_read(int dir, struct buf *out)
{
	struct store_options o = { .dir = dir, .path = CHECK_STORE };
	struct store *s = NULL;
	enum err err = store_prepare(&o);

	if (!err)
		err = store_open(&o, &s);
	if (err)
		return err;
	err = store_dump(s, out);
	store_close(s);
	return err;
}

/* The first line that the two do not share. */
static void difference(struct world *w, str recovered, str rebuilt)
{
	while (recovered.n || rebuilt.n) {
		str a = str_cut(&recovered, '\n'), b = str_cut(&rebuilt, '\n');

		if (str_eq(a, b))
			continue;
		world_violation(w, "the index does not equal its rebuild: %.*s / %.*s",
				STR_ARGS(str_head(a, 160)), STR_ARGS(str_head(b, 160)));
		return;
	}
}

int check_disk_main(void *arg)
{
	struct world *w = arg;
	struct buf recovered, rebuilt;
	int dir = -1;
	enum err err = os_open(-1, CHECK_STORE, OS_READ | OS_DIRECTORY, &dir);

	/* Its first start had not come so far. What was acknowledged before, clients know. */
	if (err == ERR_NOT_FOUND)
		return 0;
	buf_init(&recovered, DUMP_MAX);
	buf_init(&rebuilt, DUMP_MAX);
	if (!err)
		err = state_read(dir, &recovered);
	if (!err)
		err = index_discard(dir);
	if (!err)
		err = state_read(dir, &rebuilt);
	if (err) {
		world_violation(w, "the store does not open: %s", err_name(err));
	} else {
		w->counts.offline++;
		difference(w, buf_str(&recovered), buf_str(&rebuilt));
		recount(w, buf_str(&recovered));
	}
	os_close(dir);
	buf_free(&recovered);
	buf_free(&rebuilt);
	return 0;
}
