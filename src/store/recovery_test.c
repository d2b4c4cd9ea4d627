/* What survives: torn tails, damage, recycled segments, and random work against a model, reopened
 * all the time. */
#include "store/engine_fake.h"

/* The file of the segment in use, read whole. */
static char *segment_read(struct bench *b, const char *name, size_t *size)
{
	struct os_stat st;
	char *p;
	int fd;

	if (os_stat(b->dir, name, &st) || os_open(b->dir, name, OS_READ, &fd))
		panic("segment_read");
	*size = (size_t)st.size;
	p = malloc(*size);
	if (os_pread_all(fd, p, *size, 0))
		panic("segment_read");
	os_close(fd);
	return p;
}

static void segment_write(struct bench *b, const char *name, const char *p, size_t size)
{
	int fd;

	if (os_open(b->dir, name, OS_WRITE | OS_CREATE, &fd) ||
	    os_pwrite_all(fd, str_of(p, size), 0))
		panic("segment_write");
	os_close(fd);
}

/* The last commit, cut or damaged at every byte (of what matters; every 17th of the padding): what
 * was acknowledged before is there, and what is left of the last one is all of it or nothing. */
static void test_torn_tail(void)
{
	static const char name[] = "log/00000001.seg";
	struct bench b;
	size_t size, tail, end, bad = 0, whole = 0;
	char *before, *bytes, *with_last, *without_last, *now;

	tap_group("torn tail");
	bench_make(&b);
	EQ(bind_account(&b, 1), ERR_OK);
	EQ(append(&b, 1, 1, S("first"), 0), ERR_OK);
	without_last = dump(&b);
	free(segment_read(&b, name, &size));
	before = segment_read(&b, name, &size);
	EQ(append(&b, 1, 1, S("second"), 0), ERR_OK);
	with_last = dump(&b);
	store_close(b.store);
	bytes = segment_read(&b, name, &size);
	for (tail = 0; tail < size && before[tail] == bytes[tail]; tail++)
		;
	for (end = size; end > tail && bytes[end - 1] == 0; end--)
		;
	OK(tail < end);
	for (size_t at = tail / 4096 * 4096; at < end; at++) {
		for (int kind = 0; kind < 2; kind++) {
			char *copy = malloc(size);

			memcpy(copy, bytes, size);
			if (kind == 0)
				memcpy(copy + at, before + at,
				       size - at); /* the rest was not written */
			else
				copy[at] = (char)(copy[at] ^ 0x55);
			segment_write(&b, name, copy, size);
			free(copy);
			if (store_prepare(&b.options) || store_open(&b.options, &b.store)) {
				bad++;
				continue;
			}
			now = dump(&b);
			if (strcmp(now, with_last) == 0)
				whole++;
			else if (strcmp(now, without_last) != 0)
				bad++;
			free(now);
			store_close(b.store);
		}
	}
	EQ(bad, 0);
	/* Nothing but zeros that were there before may be 'not written' unnoticed. */
	OK(whole < end - tail / 4096 * 4096);
	/* And it goes on from there. */
	segment_write(&b, name, before, size);
	bench_open(&b);
	EQ(append(&b, 1, 1, S("third"), 0), ERR_OK);
	OK(rows_are(&b, 1, 1, 0, "1:0 2:0"));
	OK(survives(&b));
	free(before);
	free(bytes);
	free(with_last);
	free(without_last);
	bench_end(&b);
}

static bool log_says(int fd, const char *what)
{
	char text[16384];
	size_t n = 0;

	if (os_pread(fd, text, sizeof(text) - 1, 0, &n) && n == 0)
		return false;
	text[n] = 0;
	return strstr(text, what) != NULL;
}

/* A frame that was acknowledged is spoilt: said by name, and everything behind it is there. */
static void test_damage(void)
{
	static const char name[] = "log/00000001.seg";
	struct bench b;
	struct log log;
	size_t size, at;
	char *before, *bytes;
	int fd;

	tap_group("damage");
	bench_make(&b);
	EQ(bind_account(&b, 1), ERR_OK);
	EQ(append(&b, 1, 1, S("first"), 0), ERR_OK);
	before = segment_read(&b, name, &size);
	EQ(append(&b, 1, 1, S("second"), 0), ERR_OK);
	bytes = segment_read(&b, name, &size);
	for (at = 0; before[at] == bytes[at]; at++)
		;
	EQ(append(&b, 1, 1, S("third"), 0), ERR_OK);
	EQ(append(&b, 1, 1, S("fourth"), 0), ERR_OK);
	free(bytes);
	bytes = segment_read(&b, name, &size);
	store_close(b.store);
	bytes[at + 200] = (char)(bytes[at + 200] ^ 1);
	segment_write(&b, name, bytes, size);
	index_delete(&b);
	EQ(os_open(b.dir, "test.log", OS_READ | OS_WRITE | OS_CREATE, &fd), ERR_OK);
	log_init(&log, LOG_TO_STDERR, LOG_LEVEL_INFO, "test");
	log.fd = fd;
	b.options.log = &log;
	bench_open(&b);
	OK(log_says(fd, "store-damaged"));
	OK(log_says(fd, "00000001.seg"));
	OK(rows_are(&b, 1, 1, 0, "1:0 3:0 4:0"));
	OK(body_is(&b, 1, 1, 4, S("fourth"), S("")));
	b.options.log = NULL;
	free(before);
	free(bytes);
	store_close(b.store);
	os_close(fd);
	bench_open(&b);
	bench_end(&b);
}

static bool segment_exists(struct bench *b, unsigned segment)
{
	char name[32];
	struct os_stat st;

	snprintf(name, sizeof(name), "log/%08x.seg", segment);
	return os_stat(b->dir, name, &st) == ERR_OK;
}

/* Many segments, recycled when nothing in them is alive. */
static void test_segments(void)
{
	struct buf u, status;
	struct bench b;
	char *body = malloc(60000), *text;
	int cycles = 0;

	tap_group("segments");
	bench_make(&b);
	buf_init(&u, 256);
	buf_init(&status, 4096);
	memset(body, 'x', 60000);
	EQ(bind_account(&b, 1), ERR_OK);
	for (uint32_t i = 1; i <= 60; i++) {
		if (append(&b, 1, 1, str_of(body, 60000), 0))
			cycles = -1000;
		if (i > 5 && COMMIT(&b, 1, .op = STORE_OP_EXPUNGE, .mailbox = 1,
				    .uids = RANGES(&u, i - 5, i - 5)))
			cycles = -1000;
		if (i % 10 == 0 && store_compact(b.store) == ERR_OK)
			cycles++;
	}
	EQ(cycles, 6);
	OK(body_is(&b, 1, 1, 60, str_of(body, 60000), S("")));
	OK(survives(&b));
	OK(rows_are(&b, 1, 1, 0, "56:0 57:0 58:0 59:0 60:0"));
	store_status(b.store, &status);
	buf_add_char(&status, 0);
	text = buf_str(&status).p ? strdup(buf_str(&status).p) : NULL;
	OK(text && strstr(text, "\"commits\":") != NULL);
	/* What held nothing but deleted mail is gone, and what else was in it was kept. */
	OK(!segment_exists(&b, 1) && !segment_exists(&b, 2));
	OK(segment_exists(&b, 4));
	free(text);
	free(body);
	buf_free(&u);
	buf_free(&status);
	bench_end(&b);
}

/* Random operations against a model: arrays of flags by UID. */
enum { MODEL_BOXES = 4, MODEL_UIDS = 400, MODEL_STEPS = 1500 };

struct model {
	struct {
		uint32_t uidnext;
		bool is_there[MODEL_UIDS];
		uint8_t flags[MODEL_UIDS];
		unsigned content[MODEL_UIDS];
	} box[MODEL_BOXES + 1];
};

static uint64_t chance(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return *seed >> 33;
}

static void model_step(struct bench *b, struct model *m, uint64_t *seed, struct buf *u)
{
	uint32_t box = 1 + (uint32_t)(chance(seed) % MODEL_BOXES),
		 to = 1 + (uint32_t)(chance(seed) % MODEL_BOXES);
	uint32_t first = 1 + (uint32_t)(chance(seed) % 60),
		 last = first + (uint32_t)(chance(seed) % 5);
	uint8_t flags = (uint8_t)(chance(seed) % 32);
	unsigned what = (unsigned)(chance(seed) % 10), content = (unsigned)chance(seed);
	char body[64];

	if (what < 4 && m->box[box].uidnext < MODEL_UIDS - 1) {
		int n = snprintf(body, sizeof(body), "message %u", content);
		uint32_t uid = m->box[box].uidnext++;

		EQ(append(b, 1, box, str_of(body, (size_t)n), flags), ERR_OK);
		m->box[box].is_there[uid] = true;
		m->box[box].flags[uid] = flags;
		m->box[box].content[uid] = content;
	} else if (what < 6) {
		EQ(COMMIT(b, 1, .op = STORE_OP_FLAGS, .mailbox = box,
			  .uids = RANGES(u, first, last), .mode = 0, .flags0 = flags),
		   0);
		for (uint32_t uid = first; uid <= last; uid++)
			m->box[box].flags[uid] = flags;
	} else if (what < 7) {
		EQ(COMMIT(b, 1, .op = STORE_OP_EXPUNGE, .mailbox = box,
			  .uids = RANGES(u, first, last)),
		   0);
		for (uint32_t uid = first; uid <= last; uid++)
			m->box[box].is_there[uid] = false;
	} else if (what < 9 && box != to && m->box[to].uidnext + 6 < MODEL_UIDS) {
		bool moves = what == 8;

		EQ(COMMIT(b, 1, .op = moves ? STORE_OP_MOVE : STORE_OP_COPY, .mailbox = box,
			  .target = to, .uids = RANGES(u, first, last)),
		   0);
		for (uint32_t uid = first; uid <= last; uid++) {
			uint32_t copy = m->box[to].uidnext;

			if (!m->box[box].is_there[uid])
				continue;
			m->box[to].uidnext++;
			m->box[to].is_there[copy] = true;
			m->box[to].flags[copy] = m->box[box].flags[uid];
			m->box[to].content[copy] = m->box[box].content[uid];
			if (moves)
				m->box[box].is_there[uid] = false;
		}
	}
}

static bool model_holds(struct bench *b, const struct model *m)
{
	char want[8192], got[8192];

	for (uint32_t box = 1; box <= MODEL_BOXES; box++) {
		size_t n = 0;

		want[0] = 0;
		for (uint32_t uid = 1; uid < MODEL_UIDS; uid++)
			if (m->box[box].is_there[uid])
				n += (size_t)snprintf(want + n, sizeof(want) - n, "%s%u:%x",
						      n ? " " : "", uid, m->box[box].flags[uid]);
		rows_text(b, 1, box, 0, got, sizeof(got));
		if (strcmp(want, got) != 0) {
			printf("# box %u\n# got  %s\n# want %s\n", box, got, want);
			return false;
		}
		for (uint32_t uid = 1; uid < MODEL_UIDS; uid += 7) {
			char body[64];
			int len = snprintf(body, sizeof(body), "message %u",
					   m->box[box].content[uid]);

			if (m->box[box].is_there[uid] &&
			    !body_is(b, 1, box, uid, str_of(body, (size_t)len), S("")))
				return false;
		}
	}
	return true;
}

static void test_model(void)
{
	struct model *m = calloc(1, sizeof(*m));
	uint64_t seed = 20261122;
	struct bench b;
	struct buf u;
	unsigned wrong = 0;

	tap_group("model");
	bench_make(&b);
	buf_init(&u, 256);
	EQ(bind_account(&b, 1), ERR_OK);
	for (uint32_t box = 1; box <= MODEL_BOXES; box++)
		m->box[box].uidnext = 1;
	for (int step = 1; step <= MODEL_STEPS; step++) {
		model_step(&b, m, &seed, &u);
		if (step % 37 == 0 && store_checkpoint(b.store))
			wrong++;
		if (step % 50 == 0)
			bench_reopen(&b);
		if (step % 300 == 0) {
			store_close(b.store);
			index_delete(&b);
			bench_open(&b);
		}
		if (step % 25 == 0 && !model_holds(&b, m))
			wrong++;
	}
	EQ(wrong, 0);
	OK(survives(&b));
	free(m);
	buf_free(&u);
	bench_end(&b);
}

int main(void)
{
	test_torn_tail();
	test_damage();
	test_segments();
	test_model();
	return tap_done();
}
