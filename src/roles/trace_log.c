/* The history of messages; see trace_log.h for the idea.
 *
 * An event on disk: length (4 bytes, of what follows the checksum), checksum (4, FNV of it),
 * message (8), time (8), event (2), three lengths (2
 * each), then sender, recipient, text. A key on disk: hash (8), offset of the event (4). Keys are
 * hashes, so a search reads the event and looks whether it is really meant. The alternative, a
 * table in SQLite, cost ten times the CPU per event. */
#include "roles/trace_log.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	PENDING_FLUSH = 256 * 1024,
	BUCKETS = 1 << 16, /* of the newest file's keys, of which it has some 400,000 when full */
	KEY_BLOCK = 256,   /* keys that are read at once where a binary search ends */
	EVENT_HEAD = 8,
	EVENT_FIXED = 24,
	KEY_SIZE = 12,
	EVENT_MAX = EVENT_HEAD + EVENT_FIXED + 3 * 1024,
};

struct key {
	uint64_t hash;
	uint32_t offset;
	uint32_t older; /* in memory: the next older one of its bucket, plus one */
};

struct trace_file {
	uint32_t number;
	int events, keys; /* descriptors; keys is -1 for the newest */
	uint32_t size;
	uint32_t keys_n;
	int64_t newest_us;
};

struct trace_log {
	int folder;
	const struct log *log;
	int64_t keep_us;
	uint64_t keep_bytes;
	struct trace_file *files; /* oldest first; the last one is written */
	size_t files_n;
	struct key *keys; /* of the last */
	size_t keys_n, keys_size;
	uint32_t *buckets; /* the newest key of each, plus one; 0: none */
	struct buf pending;
	uint64_t events;
	uint64_t lost; /* bytes that could not be written, since the last that could */
};

static uint64_t key_of_message(uint64_t message)
{
	return (message * 0x9e3779b97f4a7c15u) ^ (message >> 29);
}

static uint64_t key_of_address(str address)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < address.n; i++)
		h = (h ^ (unsigned char)ascii_lower(address.p[i])) * 0x100000001b3u;
	return h ^ (h >> 32);
}

static struct trace_file *last_file(struct trace_log *t)
{
	return &t->files[t->files_n - 1];
}

static void key_link(struct trace_log *t, size_t i)
{
	uint32_t *bucket = &t->buckets[t->keys[i].hash % BUCKETS];

	t->keys[i].older = *bucket;
	*bucket = (uint32_t)i + 1;
}

static void keys_clear(struct trace_log *t)
{
	t->keys_n = 0;
	memset(t->buckets, 0, BUCKETS * sizeof(*t->buckets));
}

static bool key_add(struct trace_log *t, uint64_t hash, uint32_t offset)
{
	if (t->keys_n == t->keys_size) {
		size_t size = t->keys_size ? t->keys_size * 2 : 4096;
		struct key *keys = realloc(t->keys, size * sizeof(*keys));

		if (!keys)
			return false;
		t->keys = keys;
		t->keys_size = size;
	}
	t->keys[t->keys_n] = (struct key){ .hash = hash, .offset = offset };
	key_link(t, t->keys_n++);
	return true;
}

/* Decodes the event at the front of `bytes`; false when it is not whole or not right. */
static bool event_decode(str bytes, struct trace_found *e, size_t *size)
{
	size_t n, sender, recipient, text;
	const char *p = bytes.p;

	if (bytes.n < EVENT_HEAD + EVENT_FIXED)
		return false;
	n = get_le32(p);
	if (n < EVENT_FIXED || n > EVENT_MAX - EVENT_HEAD || n > bytes.n - EVENT_HEAD)
		return false;
	p += EVENT_HEAD;
	if (get_le32(bytes.p + 4) != (uint32_t)str_hash(str_of(p, n), 0))
		return false;
	sender = get_le16(p + 18);
	recipient = get_le16(p + 20);
	text = get_le16(p + 22);
	if (EVENT_FIXED + sender + recipient + text != n)
		return false;
	*e = (struct trace_found){ .message = get_le64(p),
				   .at_us = (int64_t)get_le64(p + 8),
				   .event = get_le16(p + 16),
				   .sender = str_of(p + EVENT_FIXED, sender),
				   .recipient = str_of(p + EVENT_FIXED + sender, recipient),
				   .text = str_of(p + EVENT_FIXED + sender + recipient, text) };
	*size = EVENT_HEAD + n;
	return true;
}

static bool event_keys(struct trace_log *t, const struct trace_found *e, uint32_t offset)
{
	return (!e->message || key_add(t, key_of_message(e->message), offset)) &&
	       (!e->sender.n || key_add(t, key_of_address(e->sender), offset)) &&
	       (!e->recipient.n || str_case_eq(e->recipient, e->sender) ||
		key_add(t, key_of_address(e->recipient), offset));
}

/* The newest file after a start: its keys, and where its whole events end. */
static enum err scan_last(struct trace_log *t)
{
	struct trace_file *f = last_file(t);
	char *all = malloc(MAX(f->size, 1u));
	struct trace_found e;
	size_t at = 0, size;
	enum err err;

	if (!all)
		return ERR_NO_MEMORY;
	if ((err = os_pread_all(f->events, all, f->size, 0))) {
		free(all);
		return err;
	}
	for (keys_clear(t); event_decode(str_of(all + at, f->size - at), &e, &size); at += size) {
		if (!event_keys(t, &e, (uint32_t)at)) {
			free(all);
			return ERR_NO_MEMORY;
		}
		f->newest_us = e.at_us;
	}
	free(all);
	if (at < f->size) {
		log_warn(t->log, "trace-tail", "file=%08u bytes=%zu why=\"an event was not whole\"",
			 f->number, f->size - at);
		f->size = (uint32_t)at;
	}
	return ERR_OK;
}

static int key_cmp(const void *a, const void *b)
{
	const struct key *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (x->offset > y->offset) - (x->offset < y->offset);
}

static enum err open_keys(struct trace_log *t, struct trace_file *f)
{
	char name[32];
	struct os_stat st;
	enum err err;

	snprintf(name, sizeof(name), "%08u.keys", f->number);
	if ((err = os_open(t->folder, name, OS_READ, &f->keys)) || (err = os_fstat(f->keys, &st)))
		return err;
	f->keys_n = (uint32_t)(st.size / KEY_SIZE);
	return ERR_OK;
}

/* The last file is full: its keys, sorted, under a temporary name first. */
static enum err close_last(struct trace_log *t)
{
	struct trace_file *f = last_file(t);
	char name[32], temporary[32];
	struct buf b;
	int fd;
	enum err err;

	qsort(t->keys, t->keys_n, sizeof(*t->keys), key_cmp);
	buf_init(&b, t->keys_n * KEY_SIZE + 1);
	for (size_t i = 0; i < t->keys_n; i++) {
		buf_add_le64(&b, t->keys[i].hash);
		buf_add_le32(&b, t->keys[i].offset);
	}
	snprintf(name, sizeof(name), "%08u.keys", f->number);
	snprintf(temporary, sizeof(temporary), "%08u.new", f->number);
	err = buf_failed(&b)
		      ? ERR_NO_MEMORY
		      : os_open(t->folder, temporary, OS_WRITE | OS_CREATE | OS_TRUNCATE, &fd);
	if (!err) {
		err = os_write_all(fd, buf_str(&b));
		os_close(fd);
	}
	buf_free(&b);
	if (!err)
		err = os_rename(t->folder, temporary, name);
	if (!err)
		err = open_keys(t, f);
	if (!err) {
		keys_clear(t);
		return ERR_OK;
	}
	/* It goes on being the last; sorting has moved its keys. */
	memset(t->buckets, 0, BUCKETS * sizeof(*t->buckets));
	for (size_t i = 0; i < t->keys_n; i++)
		key_link(t, i);
	return err;
}

static enum err add_file(struct trace_log *t, uint32_t number)
{
	struct trace_file *files = realloc(t->files, (t->files_n + 1) * sizeof(*files));
	struct trace_file *f;
	struct os_stat st;
	char name[32];
	enum err err;

	if (!files)
		return ERR_NO_MEMORY;
	t->files = files;
	f = &files[t->files_n];
	*f = (struct trace_file){ .number = number, .keys = -1 };
	snprintf(name, sizeof(name), "%08u.events", number);
	if ((err = os_open(t->folder, name, OS_READ | OS_WRITE | OS_CREATE, &f->events)))
		return err;
	if ((err = os_fstat(f->events, &st))) {
		os_close(f->events);
		return err;
	}
	f->size = (uint32_t)MIN(st.size, (uint64_t)UINT32_MAX);
	f->newest_us = st.modified_us;
	t->files_n++;
	return ERR_OK;
}

static void remove_oldest(struct trace_log *t)
{
	struct trace_file *f = &t->files[0];
	char name[32];

	os_close(f->events);
	os_close(f->keys);
	snprintf(name, sizeof(name), "%08u.events", f->number);
	if (os_unlink(t->folder, name))
		log_warn(t->log, "trace-unremoved", "file=%s", name);
	snprintf(name, sizeof(name), "%08u.keys", f->number);
	if (os_unlink(t->folder, name))
		log_debug(t->log, "trace-unremoved", "file=%s", name);
	memmove(t->files, t->files + 1, --t->files_n * sizeof(*t->files));
}

static void prune(struct trace_log *t)
{
	int64_t now = os_wall_us();
	uint64_t bytes = 0;

	for (size_t i = 0; i < t->files_n; i++)
		bytes += t->files[i].size + (uint64_t)t->files[i].keys_n * KEY_SIZE;
	while (t->files_n > 1 &&
	       (t->files[0].newest_us < now - t->keep_us || bytes > t->keep_bytes)) {
		bytes -= t->files[0].size + (uint64_t)t->files[0].keys_n * KEY_SIZE;
		remove_oldest(t);
	}
}

static int number_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static enum err open_all(struct trace_log *t, struct arena *a)
{
	uint64_t *numbers, number;
	size_t n, found = 0;
	str *names;
	enum err err;

	if ((err = os_list(t->folder, a, &names, &n)))
		return err;
	if (!(numbers = arena_array(a, n + 1, sizeof(*numbers))))
		return ERR_NO_MEMORY;
	for (size_t i = 0; i < n; i++)
		if (str_ends(names[i], S(".events")) &&
		    str_to_u64(str_head(names[i], names[i].n - 7), 99999999, &number) == ERR_OK)
			numbers[found++] = number;
	if (found == 0)
		numbers[found++] = 1;
	qsort(numbers, found, sizeof(*numbers), number_cmp);
	for (size_t i = 0; i < found; i++) {
		if ((err = add_file(t, (uint32_t)numbers[i])))
			return err;
		/* Killed between two files: the index of a full one is made again. */
		if (i + 1 < found && open_keys(t, last_file(t)) &&
		    ((err = scan_last(t)) || (err = close_last(t))))
			return err;
	}
	return scan_last(t);
}

enum err trace_log_open(int folder, int64_t keep_us, uint64_t keep_bytes, const struct log *log,
			struct trace_log **out)
{
	struct trace_log *t = calloc(1, sizeof(*t));
	struct arena *a = arena_new(16 * 1024 * 1024);
	enum err err = t && a ? ERR_OK : ERR_NO_MEMORY;

	if (!err && !(t->buckets = calloc(BUCKETS, sizeof(*t->buckets))))
		err = ERR_NO_MEMORY;
	if (!err) {
		t->folder = folder;
		t->log = log;
		buf_init(&t->pending, 4 * 1024 * 1024);
		err = open_all(t, a);
	}
	if (!err)
		trace_log_limits(t, keep_us, keep_bytes);
	arena_free(a);
	if (err)
		trace_log_close(t);
	else
		*out = t;
	return err;
}

void trace_log_limits(struct trace_log *t, int64_t keep_us, uint64_t keep_bytes)
{
	t->keep_us = keep_us;
	t->keep_bytes = keep_bytes;
	prune(t);
}

void trace_log_close(struct trace_log *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->files_n; i++) {
		os_close(t->files[i].events);
		os_close(t->files[i].keys);
	}
	buf_free(&t->pending);
	free(t->files);
	free(t->keys);
	free(t->buckets);
	free(t);
}

void trace_log_add(struct trace_log *t, const struct msg_trace_event *m)
{
	struct trace_found e = { .message = m->message,
				 .at_us = m->at_us,
				 .event = m->event,
				 .sender = str_head(m->sender, 512),
				 .recipient = str_head(m->recipient, 512),
				 .text = str_head(m->text, 1024) };
	size_t n = EVENT_FIXED + e.sender.n + e.recipient.n + e.text.n;
	struct trace_file *f = last_file(t);
	size_t start = buf_len(&t->pending);
	str body;

	if (f->size + start + EVENT_HEAD + n > TRACE_FILE_SIZE) {
		/* Its index may be there already: a new file failed the last time. */
		if (trace_log_flush(t) || (f->keys < 0 && close_last(t)) ||
		    add_file(t, f->number + 1)) {
			if (t->lost == 0)
				log_error(t->log, "trace-lost", "why=\"no new file\"");
			t->lost += n;
			return;
		}
		prune(t);
		f = last_file(t);
		start = 0;
	}
	buf_add_le32(&t->pending, (uint32_t)n);
	buf_add_le32(&t->pending, 0);
	buf_add_le64(&t->pending, e.message);
	buf_add_le64(&t->pending, (uint64_t)e.at_us);
	buf_add_le16(&t->pending, e.event);
	buf_add_le16(&t->pending, (uint16_t)e.sender.n);
	buf_add_le16(&t->pending, (uint16_t)e.recipient.n);
	buf_add_le16(&t->pending, (uint16_t)e.text.n);
	buf_add(&t->pending, e.sender);
	buf_add(&t->pending, e.recipient);
	buf_add(&t->pending, e.text);
	if (buf_failed(&t->pending))
		return;
	body = str_from(buf_str(&t->pending), start + EVENT_HEAD);
	put_le32(t->pending.p + t->pending.start + start + 4, (uint32_t)str_hash(body, 0));
	if (!event_keys(t, &e, (uint32_t)(f->size + start)))
		log_error(t->log, "trace-lost", "why=\"no memory\"");
	f->newest_us = e.at_us;
	t->events++;
	if (buf_len(&t->pending) >= PENDING_FLUSH && trace_log_flush(t))
		log_debug(t->log, "trace-flush", "events=%llu", (unsigned long long)t->events);
}

/* A full disk is told once, not for each event, and again when it is over. */
static void count_lost(struct trace_log *t, enum err err)
{
	if (err && t->lost == 0)
		log_error(t->log, "trace-lost", "bytes=%zu error=%s", buf_len(&t->pending),
			  err_name(err));
	if (!err && t->lost)
		log_warn(t->log, "trace-resumed", "lost=%llu", (unsigned long long)t->lost);
	t->lost = err ? t->lost + buf_len(&t->pending) : 0;
}

enum err trace_log_flush(struct trace_log *t)
{
	struct trace_file *f = last_file(t);
	enum err err;

	if (!buf_len(&t->pending))
		return ERR_OK;
	err = os_pwrite_all(f->events, buf_str(&t->pending), f->size);
	count_lost(t, err);
	if (!err)
		f->size += (uint32_t)buf_len(&t->pending);
	buf_clear(&t->pending);
	return err;
}

struct search {
	struct trace_log *t;
	struct arena *arena;
	uint64_t hash, message;
	str address;
	size_t limit, messages; /* of an address: at most so many, and how many there are */
	struct trace_found *found;
	size_t n; /* filled from the end: the newest first */
	bool is_full;
	uint64_t older; /* events that are not in it */
};

static bool is_known(const struct search *s, uint64_t message)
{
	for (size_t i = TRACE_FOUND_MAX - s->n; i < TRACE_FOUND_MAX; i++)
		if (s->found[i].message == message)
			return true;
	return false;
}

/* True when it is of one message more than were asked for. An event of none counts as one. */
static bool is_beyond(struct search *s, const struct trace_found *e)
{
	if (s->n == TRACE_FOUND_MAX)
		return true;
	if (s->message || (e->message && is_known(s, e->message)))
		return false;
	return s->messages++ >= s->limit;
}

static enum err take_event(struct search *s, const struct trace_file *f, uint32_t offset)
{
	char room[EVENT_MAX];
	size_t got, size;
	struct trace_found e;
	enum err err;

	if (s->is_full) {
		s->older++;
		return ERR_OK;
	}
	err = os_pread(f->events, room, sizeof(room), offset, &got);
	if (err && err != ERR_EOF)
		return err;
	if (err || offset >= f->size || !event_decode(str_of(room, got), &e, &size))
		return ERR_OK;
	if (s->message
		    ? e.message != s->message
		    : !str_case_eq(e.sender, s->address) && !str_case_eq(e.recipient, s->address))
		return ERR_OK;
	if (is_beyond(s, &e)) {
		s->is_full = true;
		s->older++;
		return ERR_OK;
	}
	e.sender = arena_str(s->arena, e.sender);
	e.recipient = arena_str(s->arena, e.recipient);
	e.text = arena_str(s->arena, e.text);
	if (!e.sender.p || !e.recipient.p || !e.text.p)
		return ERR_NO_MEMORY;
	s->found[TRACE_FOUND_MAX - ++s->n] = e;
	return ERR_OK;
}

static enum err read_keys(const struct trace_file *f, uint32_t i, uint32_t n, char *room)
{
	return os_pread_all(f->keys, room, (size_t)n * KEY_SIZE, (uint64_t)i * KEY_SIZE);
}

/* The first key of a sorted index with this hash or a higher one. */
static enum err first_key(const struct trace_file *f, uint64_t hash, uint32_t *at)
{
	char room[KEY_BLOCK * KEY_SIZE];
	uint32_t lo = 0, hi = f->keys_n;
	enum err err;

	while (hi - lo > KEY_BLOCK) {
		uint32_t mid = lo + (hi - lo) / 2;

		if ((err = read_keys(f, mid, 1, room)))
			return err;
		if (get_le64(room) < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	if ((err = read_keys(f, lo, hi - lo, room)))
		return err;
	for (const char *p = room; lo < hi && get_le64(p) < hash; p += KEY_SIZE)
		lo++;
	*at = lo;
	return ERR_OK;
}

/* Goes through the keys of the hash from the newest to the oldest. */
static enum err search_sorted(struct search *s, const struct trace_file *f)
{
	char room[KEY_SIZE];
	uint32_t from, to, offset, last = UINT32_MAX;
	enum err err = first_key(f, s->hash, &from);

	if (err || from == f->keys_n || (err = read_keys(f, from, 1, room)) ||
	    get_le64(room) != s->hash)
		return err;
	to = f->keys_n;
	if (s->hash < UINT64_MAX)
		err = first_key(f, s->hash + 1, &to);
	for (; !err && to > from && !s->is_full; to--) {
		if ((err = read_keys(f, to - 1, 1, room)))
			break;
		offset = get_le32(room + 8);
		if (offset != last) /* an event has two, with sender and recipient the same */
			err = take_event(s, f, offset);
		last = offset;
	}
	if (!err)
		s->older += to - from;
	return err;
}

static enum err search_newest(struct search *s)
{
	struct trace_log *t = s->t;
	enum err err = ERR_OK;

	for (uint32_t i = t->buckets[s->hash % BUCKETS]; i && !err; i = t->keys[i - 1].older)
		if (t->keys[i - 1].hash == s->hash)
			err = take_event(s, last_file(t), t->keys[i - 1].offset);
	return err;
}

/* They come from several roles, so an earlier one may have been written later, but hardly ever by
 * much. */
static void sort_by_time(struct trace_found *found, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct trace_found e = found[i];
		size_t at = i;

		for (; at > 0 && found[at - 1].at_us > e.at_us; at--)
			found[at] = found[at - 1];
		found[at] = e;
	}
}

static enum err search_all(struct search *s, struct trace_found **found, size_t *n)
{
	struct trace_log *t = s->t;
	enum err err = trace_log_flush(t);

	s->found = arena_array(s->arena, TRACE_FOUND_MAX, sizeof(*s->found));
	if (!s->found)
		return ERR_NO_MEMORY;
	if (!err)
		err = search_newest(s);
	for (size_t i = t->files_n - 1; !err && i > 0; i--)
		err = search_sorted(s, &t->files[i - 1]);
	*found = s->found + TRACE_FOUND_MAX - s->n;
	*n = s->n;
	sort_by_time(*found, *n);
	return err;
}

enum err trace_log_find_message(struct trace_log *t, uint64_t message, struct arena *a,
				struct trace_found **found, size_t *n)
{
	struct search s = {
		.t = t, .arena = a, .message = message, .hash = key_of_message(message)
	};

	return search_all(&s, found, n);
}

enum err trace_log_find_address(struct trace_log *t, str address, size_t limit, struct arena *a,
				struct trace_found **found, size_t *n, uint64_t *older)
{
	struct search s = { .t = t,
			    .arena = a,
			    .address = address,
			    .limit = limit,
			    .hash = key_of_address(address) };
	enum err err = search_all(&s, found, n);

	*older = s.older;
	return err;
}

struct trace_counts trace_log_counts(const struct trace_log *t)
{
	struct trace_counts c = { .events = t->events, .files = t->files_n };

	for (size_t i = 0; i < t->files_n; i++)
		c.bytes += t->files[i].size + (uint64_t)t->files[i].keys_n * KEY_SIZE;
	c.oldest_us = t->files_n ? t->files[0].newest_us : 0;
	return c;
}
