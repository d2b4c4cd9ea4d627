/* Compaction and compression: whatever is done in whatever order,
 * and wherever it is cut off, the state is the model's, and the same after a rebuild. */
#include "store/engine_fake.h"
#include "store/store_priv.h"
#include "store/compact_priv.h"

enum { BOXES = 3, UIDS = 600, STEPS = 420 };

static uint64_t chance(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return *seed >> 33;
}

static bool segment_is_there(struct bench *b, unsigned segment)
{
	char name[SEGMENT_NAME_SIZE];
	struct os_stat st;

	segment_name(name, segment);
	return os_stat(b->dir, name, &st) == ERR_OK && !segment_is_emptied(st.size);
}

static unsigned segments_filled(struct bench *b)
{
	unsigned n = 0;

	for (unsigned i = 1; i < 400; i++)
		n += segment_is_there(b, i);
	return n;
}

/* What anybody can see, without where it lies: equal before and after compaction. */
static void seen_put(struct bench *b, struct buf *out)
{
	struct msg_st_mailboxes_reply boxes;
	struct rec_mailbox m;
	struct buf names;
	str list;

	buf_init(&names, MSG_MAX);
	if (store_mailboxes(b->store, 1, &(struct msg_st_mailboxes){ 0 }, &b->reply, &boxes))
		panic("mailboxes");
	buf_add(&names, boxes.mailboxes);
	buf_printf(out, "modseq %llu used %llu\n", (unsigned long long)boxes.modseq,
		   (unsigned long long)boxes.used);
	list = buf_str(&names);
	while (!rec_mailbox_get(&list, &m)) {
		struct msg_st_rows in = {
			.mailbox = m.id, .uid_from = 1, .uid_to = UINT32_MAX, .columns = ROW_COLD
		};
		struct msg_st_rows_reply rows;
		struct rec_row r;

		buf_printf(out, "%u %.*s %u %u %llu %u %u\n", m.id, STR_ARGS(m.name), m.uidvalidity,
			   m.uidnext, (unsigned long long)m.modseq, m.messages, m.unseen);
		do {
			if (store_rows(b->store, 1, &in, &b->reply, &rows))
				panic("rows");
			while (!rec_row_get(&rows.rows, &r))
				buf_printf(out, "%u %llu %llx %llu %llu %llu %lld %d %zu %zx\n",
					   r.uid, (unsigned long long)r.modseq,
					   (unsigned long long)r.flags0, (unsigned long long)r.body,
					   (unsigned long long)r.email, (unsigned long long)r.size,
					   (long long)r.received_us, (int)r.zone, r.cold.n,
					   (size_t)str_hash(r.cold, 1));
			in.uid_from = rows.next_uid;
		} while (rows.next_uid);
	}
	buf_free(&names);
}

static bool seen_is(struct bench *b, str wanted)
{
	struct buf now;
	bool same;

	buf_init(&now, 16 * 1024 * 1024);
	seen_put(b, &now);
	same = !buf_failed(&now) && str_eq(buf_str(&now), wanted);
	if (!same)
		printf("# got\n%.*s\n# wanted\n%.*s\n", STR_ARGS(buf_str(&now)), STR_ARGS(wanted));
	buf_free(&now);
	return same;
}

/* A body that says what it is, of random length. */
static str body_make(unsigned content, struct buf *out)
{
	size_t n = 200 + content % 9000 + (content % 17 == 0 ? 90000 : 0);

	buf_clear(out);
	for (unsigned i = 0; buf_len(out) < n; i++)
		buf_printf(out, "%u line %u of this message\r\n", content, i * content);
	return buf_str(out);
}

struct model {
	struct {
		uint32_t uidnext;
		unsigned content[UIDS]; /* 0: not there */
	} box[BOXES + 1];
	unsigned kept[UIDS * BOXES]; /* expunged, the oldest first */
	size_t kept_count;
	uint64_t seed;
};

static void model_expunge(struct bench *b, struct model *m, uint32_t box, uint32_t first,
			  uint32_t last, struct buf *u)
{
	EQ(COMMIT(b, 1, .op = STORE_OP_EXPUNGE, .mailbox = box, .uids = RANGES(u, first, last)),
	   ERR_OK);
	for (uint32_t uid = first; uid <= last; uid++) {
		if (m->box[box].content[uid])
			m->kept[m->kept_count++] = m->box[box].content[uid];
		m->box[box].content[uid] = 0;
	}
}

static void model_copy(struct bench *b, struct model *m, uint32_t box, uint32_t first,
		       uint32_t last, bool moves, struct buf *u)
{
	uint32_t to = box % BOXES + 1;

	if (m->box[to].uidnext + 8 >= UIDS)
		return;
	EQ(COMMIT(b, 1, .op = moves ? STORE_OP_MOVE : STORE_OP_COPY, .mailbox = box, .target = to,
		  .uids = RANGES(u, first, last)),
	   ERR_OK);
	for (uint32_t uid = first; uid <= last; uid++) {
		if (!m->box[box].content[uid])
			continue;
		m->box[to].content[m->box[to].uidnext++] = m->box[box].content[uid];
		if (moves)
			m->box[box].content[uid] = 0;
	}
}

static void model_step(struct bench *b, struct model *m, struct buf *u, struct buf *body)
{
	uint32_t box = 1 + (uint32_t)(chance(&m->seed) % BOXES);
	uint32_t top = MAX(m->box[box].uidnext, 2u) - 1;
	uint32_t first = 1 + (uint32_t)(chance(&m->seed) % top);
	uint32_t last = MIN(first + (uint32_t)(chance(&m->seed) % 6), UIDS - 1u);
	unsigned what = (unsigned)(chance(&m->seed) % 12), content;

	if (what < 5 && m->box[box].uidnext < UIDS - 1) {
		content = 1 + (unsigned)chance(&m->seed) % 1000000;
		EQ(append(b, 1, box, body_make(content, body), 0), ERR_OK);
		m->box[box].content[m->box[box].uidnext++] = content;
	} else if (what < 7) {
		EQ(COMMIT(b, 1, .op = STORE_OP_FLAGS, .mailbox = box,
			  .uids = RANGES(u, first, last), .mode = 0, .flags0 = what & 31),
		   ERR_OK);
	} else if (what < 10) {
		model_expunge(b, m, box, first, last, u);
	} else {
		model_copy(b, m, box, first, last, what == 11, u);
	}
}

static bool bodies_hold(struct bench *b, const struct model *m, unsigned stride)
{
	struct buf body;
	bool good = true;

	buf_init(&body, 1024 * 1024);
	for (uint32_t box = 1; box <= BOXES; box++) {
		for (uint32_t uid = 1 + stride % 3; uid < m->box[box].uidnext; uid += stride) {
			unsigned content = m->box[box].content[uid];

			if (content && !body_is(b, 1, box, uid, body_make(content, &body), S(""))) {
				printf("# box %u uid %u\n", box, uid);
				good = false;
			}
		}
	}
	buf_free(&body);
	return good;
}

/* One pass, cut off after so many steps; everything that was under way is lost, or not. With a
 * model, work goes on in between: after the helper looked, and on top of what is not durable yet.
 */
static void pass_cut(struct bench *b, unsigned steps, uint64_t *seed, struct model *m)
{
	struct buf u, body;
	struct store *s = b->store;
	struct compact_sources from = { .dir = b->dir, .identity = &s->kv->identity };
	struct compactor *c = NULL;
	struct compact_plan plan = { .count = 0 };
	struct msg_cp_planned planned;
	struct msg_cp_plan ask;
	struct msg_cp_step step;
	struct msg_cp_items in = { .more = true };
	struct buf list, items, blobs;
	int64_t when;

	buf_init(&u, 256);
	buf_init(&body, 1024 * 1024);
	buf_init(&list, 16384);
	buf_init(&items, 49152);
	buf_init(&blobs, 32 * 1024 * 1024);
	if (store_checkpoint(s))
		panic("checkpoint");
	from.index = s->kv->index;
	if (store_compact_due(s, true, &ask) && !compact_plan_make(&from, &ask, &plan)) {
		compact_plan_encode(&plan, &list, &planned);
		if (store_compact_begin(s, &planned) && compactor_new(&from, &plan, &c))
			panic("compactor");
	}
	for (unsigned i = 0; c && i < steps && in.more; i++) {
		s->compact.next_step = 0;
		if (!store_compact_step_due(s, &step, &when) ||
		    compactor_step(c, step.bytes, &items, &blobs, &in.more))
			panic("step");
		in.items = buf_str(&items);
		for (unsigned k = 0; m && k < 3; k++)
			model_step(b, m, &u, &body);
		store_compact_items(s, &in, buf_str(&blobs));
		for (unsigned k = 0; m && k < 3; k++)
			model_step(b, m, &u, &body);
		if ((i + 1 < steps || chance(seed) % 2) && store_settle(s))
			panic("settle");
	}
	compactor_free(c);
	compact_plan_free(&plan);
	buf_free(&u);
	buf_free(&body);
	buf_free(&list);
	buf_free(&items);
	buf_free(&blobs);
}

/* As it goes by itself, with this setting. */
static void percent_run(struct bench *b, unsigned percent)
{
	store_set_limits(b->store, &(struct store_limits){ .percent = percent });
	do {
		b->store->compact.has_gained = false;
		EQ(store_checkpoint(b->store), ERR_OK);
		b->store->compact.next_plan = 0;
		EQ(store_compact_once(b->store, false), ERR_OK);
	} while (store_compact_has_gained(b->store));
}

static void reopen(struct bench *b, bool without_index)
{
	store_close(b->store);
	if (without_index)
		index_delete(b);
	bench_open(b);
}

/* Now and then something that must change nothing that can be seen. */
static unsigned disturb(struct bench *b, struct model *m, int step)
{
	struct buf before;
	unsigned wrong = 0;

	buf_init(&before, 16 * 1024 * 1024);
	seen_put(b, &before);
	switch (step % 5) {
	case 0:
		wrong += store_compact(b->store) != ERR_OK;
		break;
	case 1:
		pass_cut(b, 1 + (unsigned)(chance(&m->seed) % 6), &m->seed, NULL);
		reopen(b, false);
		break;
	case 2:
		pass_cut(b, 1 + (unsigned)(chance(&m->seed) % 6), &m->seed, NULL);
		reopen(b, true);
		break;
	case 3:
		wrong += store_compact_once(b->store, true) != ERR_OK;
		reopen(b, true);
		break;
	default:
		wrong += store_checkpoint(b->store) != ERR_OK;
		break;
	}
	wrong += !seen_is(b, buf_str(&before));
	wrong += !bodies_hold(b, m, 7);
	buf_free(&before);
	return wrong;
}

/* Whole passes in the middle of everything, and a crash at the end. */
static void model_mixed(uint64_t seed, const struct store_limits *limits)
{
	struct model *m = calloc(1, sizeof(*m));
	struct buf u, body;
	struct bench b;
	unsigned wrong = 0;

	bench_make(&b);
	b.options.limits = *limits;
	store_set_limits(b.store, limits);
	buf_init(&u, 256);
	buf_init(&body, 1024 * 1024);
	EQ(bind_account(&b, 1), ERR_OK);
	m->seed = seed;
	for (uint32_t box = 1; box <= BOXES; box++)
		m->box[box].uidnext = 1;
	for (int round = 0; round < 5; round++) {
		for (int step = 0; step < 50; step++)
			model_step(&b, m, &u, &body);
		pass_cut(&b, round % 2 ? 12 : 1000, &m->seed, m);
		EQ(store_settle(b.store), ERR_OK);
		wrong += !bodies_hold(&b, m, 1);
		reopen(&b, round % 2);
		wrong += !bodies_hold(&b, m, 1);
	}
	EQ(wrong, 0);
	EQ(store_compact(b.store), ERR_OK);
	OK(bodies_hold(&b, m, 1));
	OK(survives(&b));
	free(m);
	buf_free(&u);
	buf_free(&body);
	bench_end(&b);
}

static void model_run(uint64_t seed, const struct store_limits *limits)
{
	struct model *m = calloc(1, sizeof(*m));
	struct buf u, body;
	struct bench b;
	unsigned wrong = 0;

	bench_make(&b);
	b.options.limits = *limits;
	store_set_limits(b.store, limits);
	buf_init(&u, 256);
	buf_init(&body, 1024 * 1024);
	EQ(bind_account(&b, 1), ERR_OK);
	m->seed = seed;
	for (uint32_t box = 1; box <= BOXES; box++)
		m->box[box].uidnext = 1;
	for (int step = 1; step <= STEPS; step++) {
		model_step(&b, m, &u, &body);
		if (step % 35 == 0)
			wrong += disturb(&b, m, step / 35);
	}
	EQ(wrong, 0);
	EQ(store_compact(b.store), ERR_OK);
	OK(bodies_hold(&b, m, 1));
	OK(survives(&b));
	OK(store_compact_freed(b.store) == 0); /* reopened: nothing left to do */
	EQ(store_compact(b.store), ERR_OK);
	OK(bodies_hold(&b, m, 1));
	printf("# %u segments are left\n", segments_filled(&b));
	free(m);
	buf_free(&u);
	buf_free(&body);
	bench_end(&b);
}

static void test_model(void)
{
	tap_group("random work, compaction and crashes");
	model_run(20261122, &(struct store_limits){ .percent = 50 });
	model_run(7, &(struct store_limits){ .percent = 50, .compress_us = 1 });
	model_run(99, &(struct store_limits){ .percent = 50, .keep_us = INT64_MAX / 4 });
	model_run(5, &(struct store_limits){ .percent = 50, .compress_us = 1, .keep_us = 20000 });
}

/* The first message is wanted for ever, so the first segment stays. What came and went behind it is
 * given back, and does not come back when the index is made anew. */
static void test_middle(void)
{
	char *text = malloc(60000);
	struct bench b;
	struct buf u;

	tap_group("segments in the middle");
	bench_make(&b);
	buf_init(&u, 256);
	memset(text, 'x', 60000);
	EQ(bind_account(&b, 1), ERR_OK);
	for (uint32_t i = 1; i <= 60; i++)
		EQ(append(&b, 1, 1, str_of(text, 60000), 0), ERR_OK);
	OK(segment_is_there(&b, 1) && segment_is_there(&b, 3));
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 17, 60)), ERR_OK);
	percent_run(&b, 80);
	OK(store_compact_freed(b.store) >= 2);
	OK(b.removed >= 2); /* their blocks are freed by whoever closes them */
	OK(segment_is_there(&b, 1));
	OK(!segment_is_there(&b, 3));
	OK(survives(&b));
	OK(rows_are(&b, 1, 1, 0,
		    "1:0 2:0 3:0 4:0 5:0 6:0 7:0 8:0 9:0 10:0 11:0 12:0 13:0 14:0 "
		    "15:0 16:0"));
	/* Then the first goes, and what only it was kept for. */
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 2, 16)), ERR_OK);
	EQ(store_compact(b.store), ERR_OK);
	OK(!segment_is_there(&b, 1));
	OK(body_is(&b, 1, 1, 1, str_of(text, 60000), S("")));
	OK(survives(&b));
	free(text);
	buf_free(&u);
	bench_end(&b);
}

/* A deletion whose own segment goes before the one it is needed for. Without it the message would
 * be back after a rebuild. */
static void test_deletions(void)
{
	char *text = malloc(60000);
	struct bench b;
	struct buf u;

	tap_group("deletions");
	bench_make(&b);
	buf_init(&u, 256);
	memset(text, 'y', 60000);
	EQ(bind_account(&b, 1), ERR_OK);
	/* The first segment: wanted, but for message 3. */
	for (uint32_t i = 1; i <= 15; i++)
		EQ(append(&b, 1, 1, str_of(text, 60000), 0), ERR_OK);
	for (uint32_t i = 16; i <= 22; i++)
		EQ(append(&b, 1, 2, str_of(text, 60000), 0), ERR_OK);
	/* The second: the deletion, and what goes soon. */
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1, .uids = RANGES(&u, 3, 3)), ERR_OK);
	for (uint32_t i = 1; i <= 15; i++)
		EQ(append(&b, 1, 2, str_of(text, 60000), 0), ERR_OK);
	EQ(COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 2, .uids = RANGES(&u, 1, 22)), ERR_OK);
	EQ(append(&b, 1, 2, str_of(text, 60000), 0), ERR_OK);
	percent_run(&b, 30);
	OK(segment_is_there(&b, 1));
	OK(!segment_is_there(&b, 2));
	OK(survives(&b));
	OK(rows_are(&b, 1, 1, 0, "1:0 2:0 4:0 5:0 6:0 7:0 8:0 9:0 10:0 11:0 12:0 13:0 14:0 15:0"));
	free(text);
	buf_free(&u);
	bench_end(&b);
}

static uint64_t stored_bytes(struct bench *b)
{
	struct buf status;
	const char *at;
	uint64_t n = 0;

	buf_init(&status, 8192);
	store_status(b->store, &status);
	buf_add_char(&status, 0);
	at = strstr(buf_str(&status).p, "\"wanted_bytes\":");
	if (at)
		n = strtoull(at + 15, NULL, 10);
	buf_free(&status);
	return n;
}

/* What is old becomes smaller, once, and reads the same from any place on. */
static void test_compression(void)
{
	struct msg_st_rows in = {
		.mailbox = 1, .uid_from = 1, .uid_to = 1, .columns = ROW_LOCATION
	};
	struct body_cipher *c = body_cipher_new();
	struct msg_st_rows_reply out;
	struct rec_body_location at;
	struct rec_row row;
	struct bench b;
	struct buf text, got;
	uint64_t before;
	int fd = -1;

	tap_group("compression");
	bench_make(&b);
	buf_init(&text, 1024 * 1024);
	buf_init(&got, 1024 * 1024);
	EQ(bind_account(&b, 1), ERR_OK);
	for (unsigned i = 0; buf_len(&text) < 100000; i++)
		buf_printf(&text, "a line that says number %u and little else\r\n", i);
	for (unsigned i = 0; i < 40; i++)
		EQ(append(&b, 1, 1, buf_str(&text), 0), ERR_OK);
	EQ(append(&b, 1, 1, S(""), 0), ERR_OK);
	EQ(store_compact(b.store), ERR_OK);
	EQ(store_compact_freed(b.store), 0);
	before = stored_bytes(&b);
	b.options.limits.compress_us = 1;
	store_set_limits(b.store, &b.options.limits);
	EQ(store_compact(b.store), ERR_OK);
	EQ(store_compact(b.store), ERR_OK);
	OK(store_compact_freed(b.store) > 1);
	OK(stored_bytes(&b) < before / 2);
	OK(body_is(&b, 1, 1, 1, buf_str(&text), S("")));
	OK(body_is(&b, 1, 1, 41, S(""), S("")));
	EQ(store_rows(b.store, 1, &in, &b.reply, &out), ERR_OK);
	EQ(rec_row_get(&out.rows, &row), ERR_OK);
	EQ(rec_body_location_get(&row.location, &at), ERR_OK);
	EQ(at.codec, BODY_ZSTD);
	OK(at.stored < at.size / 2 && at.size == buf_len(&text));
	EQ(store_segment(b.store, at.segment, row.body, &fd), ERR_OK);
	for (size_t from = 0; from < buf_len(&text); from += 21111) {
		size_t n = MIN((size_t)50000, buf_len(&text) - from);
		char *p = malloc(n);

		EQ(body_read(c, fd, &at, from, n, p), ERR_OK);
		OK(memcmp(p, buf_str(&text).p + from, n) == 0);
		free(p);
	}
	at.key[3] ^= 1;
	EQ(body_read(c, fd, &at, 0, 10, (char[10]){ 0 }), ERR_DAMAGED);
	at.key[3] ^= 1;
	at.codec = 2;
	EQ(body_read(c, fd, &at, 0, 10, (char[10]){ 0 }), ERR_UNSUPPORTED);
	os_close(fd);
	OK(survives(&b));
	body_cipher_free(c);
	buf_free(&text);
	buf_free(&got);
	bench_end(&b);
}

/* Bytes that do not become fewer, and every byte of a compressed body spoilt in turn. */
static void test_codec(void)
{
	struct body_cipher *c = body_cipher_new();
	struct rec_body_location at = { .size = 70001 };
	char *plain = malloc(70001), *got = malloc(70001);
	struct buf sealed, packed;
	unsigned wrong = 0;
	int fd;

	tap_group("codec");
	buf_init(&sealed, 256 * 1024);
	buf_init(&packed, 256 * 1024);
	os_random(at.key, sizeof(at.key));
	os_random(plain, 65536);
	memset(plain + 65536, 'z', 70001 - 65536);
	for (uint32_t i = 0; i < 2; i++) {
		size_t n = i ? 70001 - 65536 : 65536;
		char *p = buf_reserve(&sealed, n + BODY_TAG);

		body_seal_chunk(c, at.key, i, i == 1, str_of(plain + 65536 * i, n), p);
		buf_added(&sealed, n + BODY_TAG);
	}
	at.stored = buf_len(&sealed);
	EQ(os_memfd(buf_str(&sealed), true, &fd), ERR_OK);
	EQ(body_compress(c, fd, &at, &packed), ERR_OK);
	os_close(fd);
	at.codec = BODY_ZSTD;
	at.stored = buf_len(&packed);
	OK(at.stored > 65536 && at.stored < 66000);
	for (size_t i = 0; i <= buf_len(&packed); i += i < 40 || i > 64500 ? 1 : 997) {
		char *bytes = packed.p + packed.start;

		if (i < at.stored)
			bytes[i] = (char)(bytes[i] ^ 0x55);
		EQ(os_memfd(buf_str(&packed), true, &fd), ERR_OK);
		if (i < at.stored)
			bytes[i] = (char)(bytes[i] ^ 0x55);
		memset(got, 0, 70001);
		if ((body_read(c, fd, &at, 0, 70001, got) == ERR_OK) != (i == at.stored))
			wrong++;
		os_close(fd);
	}
	EQ(wrong, 0);
	OK(memcmp(got, plain, 70001) == 0);
	EQ(body_read(c, fd, &at, 70000, 2, got), ERR_RANGE);
	/* Again is under other nonces: nothing of it looks the same. */
	memcpy(got, packed.p + packed.start, BODY_SALT);
	at.codec = BODY_PLAIN;
	at.stored = buf_len(&sealed);
	EQ(os_memfd(buf_str(&sealed), true, &fd), ERR_OK);
	EQ(body_compress(c, fd, &at, &packed), ERR_OK);
	OK(memcmp(got, packed.p + packed.start, BODY_SALT) != 0);
	os_close(fd);
	body_cipher_free(c);
	buf_free(&sealed);
	buf_free(&packed);
	free(plain);
	free(got);
}

/* Everything is copied while it moves, and changes its form: in the same frame, on top of it. */
static void test_moving(void)
{
	const struct store_limits limits = { .percent = 50, .compress_us = 1 };
	struct model *m = calloc(1, sizeof(*m));
	struct msg_cp_items in = { .more = true };
	struct compact_plan plan;
	struct compactor *c;
	struct msg_cp_planned planned;
	struct msg_cp_plan ask;
	struct msg_cp_step step;
	struct bench b;
	struct buf u, body, list, items, blobs;
	int64_t when;

	tap_group("copies of what moves");
	bench_make(&b);
	store_set_limits(b.store, &limits);
	buf_init(&u, 256);
	buf_init(&body, 1024 * 1024);
	buf_init(&list, 16384);
	buf_init(&items, 49152);
	buf_init(&blobs, 32 * 1024 * 1024);
	EQ(bind_account(&b, 1), ERR_OK);
	for (uint32_t box = 1; box <= BOXES; box++)
		m->box[box].uidnext = 1;
	for (unsigned i = 1; i <= 15; i++) {
		EQ(append(&b, 1, 1, body_make(17 * i, &body), 0), ERR_OK);
		m->box[1].content[m->box[1].uidnext++] = 17 * i;
	}
	EQ(store_checkpoint(b.store), ERR_OK);
	OK(store_compact_due(b.store, true, &ask));
	EQ(compact_plan_make(&(struct compact_sources){ .dir = b.dir,
							.identity = &b.store->kv->identity,
							.index = b.store->kv->index },
			     &ask, &plan),
	   ERR_OK);
	EQ(plan.count, 1);
	compact_plan_encode(&plan, &list, &planned);
	OK(store_compact_begin(b.store, &planned));
	EQ(compactor_new(&(struct compact_sources){ .dir = b.dir,
						    .identity = &b.store->kv->identity,
						    .index = b.store->kv->index },
			 &plan, &c),
	   ERR_OK);
	while (in.more) {
		b.store->compact.next_step = 0;
		OK(store_compact_step_due(b.store, &step, &when));
		EQ(compactor_step(c, step.bytes, &items, &blobs, &in.more), ERR_OK);
		in.items = buf_str(&items);
		store_compact_items(b.store, &in, buf_str(&blobs));
		if (buf_len(&blobs))
			model_copy(&b, m, 1, 1, 15, false, &u);
		EQ(store_settle(b.store), ERR_OK);
	}
	OK(m->box[2].uidnext > 15);
	OK(bodies_hold(&b, m, 1));
	compactor_free(c);
	reopen(&b, true);
	OK(bodies_hold(&b, m, 1));
	EQ(store_compact(b.store), ERR_OK);
	OK(bodies_hold(&b, m, 1));
	OK(survives(&b));
	free(m);
	buf_free(&u);
	buf_free(&body);
	buf_free(&list);
	buf_free(&items);
	buf_free(&blobs);
	bench_end(&b);
}

static void test_mixed(void)
{
	tap_group("work in the middle of compaction");
	model_mixed(1, &(struct store_limits){ .percent = 50 });
	model_mixed(2, &(struct store_limits){ .percent = 50, .compress_us = 1 });
	model_mixed(3, &(struct store_limits){
			       .percent = 50, .compress_us = 1, .keep_us = INT64_MAX / 4 });
}

int main(void)
{
	test_codec();
	test_middle();
	test_deletions();
	test_compression();
	test_moving();
	test_mixed();
	test_model();
	return tap_done();
}
