/* fsck's look at bodies: each is opened whole, with the key that a row gives for it, once.
 *
 * A tag of AES-GCM is right or the chunk is damaged: there is no third. The table of bodies that
 * were seen holds how many refer to each, which is what the body's own record must say too, as a
 * body whose count is too low would go while somebody still wants it.
 *
 * What is left of a damaged one is written aside chunk by chunk, with a line where bytes are
 * missing.
 */
#include "store/check_priv.h"

#include "store/crc32c.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEEN_FIRST = 4096, NAME_MAX_SIZE = 160 };

static size_t slot_of(const struct check *c, uint64_t id)
{
	size_t at = (size_t)(id * 0x9e3779b97f4a7c15u) & (c->seen_room - 1);

	while (c->seen[at].id && c->seen[at].id != id)
		at = (at + 1) & (c->seen_room - 1);
	return at;
}

static enum err seen_grow(struct check *c)
{
	struct body_seen *old = c->seen;
	size_t n = c->seen_room;

	c->seen_room = n ? n * 2 : SEEN_FIRST;
	c->seen = calloc(c->seen_room, sizeof(*c->seen));
	if (!c->seen) {
		c->seen = old;
		c->seen_room = n;
		return ERR_NO_MEMORY;
	}
	for (size_t i = 0; i < n; i++)
		if (old[i].id)
			c->seen[slot_of(c, old[i].id)] = old[i];
	free(old);
	return ERR_OK;
}

const struct body_seen *check_body_seen(const struct check *c, uint64_t id)
{
	const struct body_seen *s = c->seen_room ? &c->seen[slot_of(c, id)] : NULL;

	return s && s->id ? s : NULL;
}

/* The last segment stays open: neighbours lie in one. */
static enum err segment_fd(struct check *c, uint32_t segment, int *fd)
{
	char name[SEGMENT_NAME_SIZE];
	enum err err;

	if (c->segment_fd >= 0 && c->segment_open == segment) {
		*fd = c->segment_fd;
		return ERR_OK;
	}
	segment_name(name, segment);
	if ((err = os_open(c->dir, name, OS_READ, fd)))
		return err;
	os_close(c->segment_fd);
	c->segment_fd = *fd;
	c->segment_open = segment;
	return ERR_OK;
}

static enum err body_open(struct check *c, const struct body *d, uint64_t id, int *fd)
{
	char name[40];

	if (!place_is_file(d->place))
		return segment_fd(c, d->place.segment, fd);
	snprintf(name, sizeof(name), "body/%016llx", (unsigned long long)id);
	return os_open(c->dir, name, OS_READ, fd);
}

static struct rec_body_location location_of(const struct body *d, const uint8_t key[BODY_KEY_SIZE])
{
	struct rec_body_location at = { .segment = d->place.segment,
					.offset = d->place.offset,
					.stored = d->stored,
					.size = d->size,
					.codec = d->codec };

	memcpy(at.key, key, sizeof(at.key));
	return at;
}

/* Each chunk that can be opened goes to `fd_out`, unless that is -1. *bad: bytes that cannot. */
static enum err chunks_read(struct check *c, const struct body *d, uint64_t id,
			    const uint8_t key[BODY_KEY_SIZE], int fd_out, uint64_t *bad)
{
	struct rec_body_location at = location_of(d, key);
	char *chunk = malloc(BODY_CHUNK), line[80];
	int fd = -1;
	enum err err = chunk ? body_open(c, d, id, &fd) : ERR_NO_MEMORY;

	*bad = 0;
	if (err == ERR_NOT_FOUND || err == ERR_IO) {
		*bad = MAX(d->size, (uint64_t)1);
		err = ERR_OK;
	}
	for (uint64_t from = 0; fd >= 0 && !err && from < MAX(d->size, (uint64_t)1);
	     from += BODY_CHUNK) {
		size_t n = (size_t)MIN((uint64_t)BODY_CHUNK, d->size - from);
		str s = str_of(chunk, n);

		err = body_read(c->bodies, fd, &at, from, n, chunk);
		if (err == ERR_DAMAGED || err == ERR_IO || err == ERR_UNSUPPORTED) {
			*bad += MAX(n, (size_t)1);
			snprintf(line, sizeof(line), "\r\n[%zu bytes were damaged here]\r\n", n);
			s = str_from_c(line);
			err = ERR_OK;
		}
		if (!err && fd_out >= 0)
			err = os_write_all(fd_out, s);
	}
	if (fd >= 0 && place_is_file(d->place))
		os_close(fd);
	free(chunk);
	return err;
}

/* Online: a file goes as soon as its message was expunged, and the index says so later. */
static bool has_gone_since(struct check *c, const struct body *d, uint64_t id)
{
	int fd = -1;

	if (!c->options->is_online || !place_is_file(d->place))
		return false;
	if (body_open(c, d, id, &fd) != ERR_NOT_FOUND) {
		os_close(fd);
		return false;
	}
	check_tell(c,
		   (struct check_finding){ .level = CHECK_NOTE, .what = "body-gone", .body = id },
		   "its file is not there: expunged since the last checkpoint, or lost");
	return true;
}

enum err check_body(struct check *c, uint64_t id, const uint8_t key[BODY_KEY_SIZE], struct body *d,
		    enum body_state *state)
{
	uint32_t crc = crc32c(0, str_of((const char *)key, BODY_KEY_SIZE));
	struct key k = key_make1(KIND_BODY, id);
	struct body_seen *s;
	uint64_t bad = 0;
	str value;
	enum err err = kv_get(c->view, KV_DURABLE, &k, &value);

	*state = BODY_MISSING;
	if (!err)
		err = body_get(value, d);
	if (err)
		return err == ERR_NOT_FOUND || err == ERR_DAMAGED ? ERR_OK : err;
	if (c->seen_count * 2 >= c->seen_room && (err = seen_grow(c)))
		return err;
	s = &c->seen[slot_of(c, id)];
	if (!s->id) {
		*s = (struct body_seen){ .id = id };
		c->seen_count++;
		c->result->bodies++;
	}
	if (s->state == BODY_UNSEEN || s->key_crc != crc) {
		if ((err = chunks_read(c, d, id, key, -1, &bad)))
			return err;
		s->state = bad && !has_gone_since(c, d, id) ? BODY_BAD : BODY_GOOD;
		s->key_crc = crc;
	}
	s->references += s->state == BODY_GOOD;
	*state = s->state;
	return ERR_OK;
}

enum err check_cold(struct check *c, const struct row *r, str *prefix)
{
	struct rec_row_cold cold;
	uint8_t iv[FRAME_IV_SIZE];
	uint32_t crc;
	str rest;
	char *p;
	int fd;
	enum err err;

	*prefix = STR_EMPTY;
	if (r->cold_size == 0)
		return ERR_OK;
	if (r->cold_size <= COLD_HEADER_SIZE)
		return ERR_DAMAGED;
	if ((err = segment_fd(c, r->cold.segment, &fd)))
		return err == ERR_NOT_FOUND ? ERR_DAMAGED : err;
	buf_clear(&c->plain);
	if (!(p = buf_reserve(&c->plain, r->cold_size)))
		return ERR_DAMAGED; /* no cold row is as long as that */
	if ((err = os_pread_all(fd, p, r->cold_size, r->cold.offset)))
		return err == ERR_EOF || err == ERR_IO ? ERR_DAMAGED : err;
	memcpy(iv, p, sizeof(iv));
	crc = get_le32(p + FRAME_IV_SIZE);
	rest = str_of(p + COLD_HEADER_SIZE, r->cold_size - COLD_HEADER_SIZE);
	if (crc32c(0, rest) != crc)
		return ERR_DAMAGED;
	log_cipher_run(c->cipher, iv, rest, p + COLD_HEADER_SIZE);
	if (rec_row_cold_get(&rest, &cold))
		return ERR_DAMAGED;
	*prefix = cold.prefix;
	return ERR_OK;
}

static enum err file_write(struct check *c, const char *name, const char *ending, str text, int *fd)
{
	char full[NAME_MAX_SIZE];
	enum err err;

	snprintf(full, sizeof(full), "%s%s", name, ending);
	err = os_open(c->aside, full, OS_WRITE | OS_CREATE | OS_TRUNCATE, fd);
	return err ? err : os_write_all(*fd, text);
}

enum err check_body_aside(struct check *c, const char *name, str prefix, const struct body *d,
			  uint64_t id, const uint8_t key[BODY_KEY_SIZE], str note)
{
	uint64_t bad;
	int fd = -1;
	enum err err = check_aside(c);

	if (!err)
		err = file_write(c, name, ".txt", note, &fd);
	if (!err)
		err = os_fsync(fd);
	os_close(fd);
	fd = -1;
	if (!err && d) {
		err = file_write(c, name, ".eml", prefix, &fd);
		if (!err)
			err = chunks_read(c, d, id, key, fd, &bad);
		if (!err)
			err = os_fsync(fd);
		os_close(fd);
	}
	return err;
}

void check_bodies_end(struct check *c)
{
	os_close(c->segment_fd);
	free(c->seen);
}

/* ---- the records, and files of nobody ---- */

static void record_check(struct check *c, uint64_t id, struct body *d)
{
	const struct body_seen *s = check_body_seen(c, id);
	struct check_finding f = { .level = CHECK_DAMAGE, .what = "body-references", .body = id };
	struct key k = key_make1(KIND_BODY, id);
	struct buf value;

	if (s && s->references == d->references)
		return;
	buf_init(&value, RECORD_VALUE_MAX);
	if (!s || !s->references) {
		f.what = "body-unused";
		if (!s)
			check_tell(c, f, "nobody refers to it any more");
		check_fix_number(c, RECORD_DELETE, &k, &value);
	} else {
		check_tell(c, f, "its record says %llu references, and there are %u",
			   (unsigned long long)d->references, s->references);
		d->references = s->references;
		body_put(&value, d);
		check_fix_number(c, RECORD_PUT, &k, &value);
	}
	buf_free(&value);
}

static bool name_is_body(str name, uint64_t *id)
{
	*id = 0;
	if (name.n != 16)
		return false;
	for (size_t i = 0; i < name.n; i++) {
		int digit = ascii_hex_value(name.p[i]);

		if (digit < 0)
			return false;
		*id = *id << 4 | (uint64_t)digit;
	}
	return true;
}

static enum err file_aside(struct check *c, str name)
{
	char from[NAME_MAX_SIZE], to[NAME_MAX_SIZE];
	enum err err = check_aside(c);

	if (err)
		return err;
	snprintf(from, sizeof(from), "body/%.*s", STR_ARGS(str_head(name, 64)));
	snprintf(to, sizeof(to), "%s/body-%.*s", c->result->aside, STR_ARGS(str_head(name, 64)));
	return os_rename(c->dir, from, to);
}

/* Files whose number was never given away, or whose commit was under way (body_in.c), are swept at
 * the server's start. */
static enum err files_check(struct check *c, uint64_t *next_body)
{
	uint64_t given = *next_body;
	str *names;
	size_t count = 0;
	uint64_t id;
	int fd;
	enum err err = os_open(c->dir, "body", OS_READ | OS_DIRECTORY, &fd);

	if (err)
		return err == ERR_NOT_FOUND ? ERR_OK : err;
	err = os_list(fd, c->arena, &names, &count);
	os_close(fd);
	for (size_t i = 0; i < count && !err; i++) {
		const struct body_seen *s;
		char file[NAME_MAX_SIZE], marker[40];
		struct os_stat st;

		if (!name_is_body(names[i], &id) || (id >= given && !check_lost_records(c)))
			continue;
		*next_body = MAX(*next_body, id + 1);
		s = check_body_seen(c, id);
		snprintf(marker, sizeof(marker), "body/new-%llx", (unsigned long long)id);
		if (s ? s->references > 0 : os_stat(c->dir, marker, &st) == ERR_OK)
			continue;
		snprintf(file, sizeof(file), "body/%.*s", STR_ARGS(names[i]));
		if (!s)
			check_tell(c,
				   (struct check_finding){ .level = CHECK_DAMAGE,
							   .what = "file-unused",
							   .file = str_from_c(file),
							   .body = id },
				   "no record refers to it");
		if (check_repairs(c))
			err = file_aside(c, names[i]);
	}
	return err;
}

enum err check_body_records(struct check *c, uint64_t *next_body)
{
	struct key prefix = key_make(KIND_BODY);
	struct kv_cursor cursor;
	uint64_t numbers[3];
	struct body d;
	str key, value;
	enum err err = kv_cursor_open(c->view, KV_DURABLE, key_str(&prefix), key_str(&prefix),
				      false, &cursor);

	while (!err && !(err = kv_cursor_next(&cursor, &key, &value))) {
		if (!key_parse(key, KIND_BODY, 1, numbers) || body_get(value, &d)) {
			check_tell(c,
				   (struct check_finding){ .level = CHECK_LOSS, .what = "record" },
				   "a body's record cannot be read");
			check_fix(c, RECORD_DELETE, key, STR_EMPTY);
			continue;
		}
		*next_body = MAX(*next_body, numbers[0] + 1);
		record_check(c, numbers[0], &d);
	}
	kv_cursor_close(&cursor);
	if (err == ERR_EOF)
		err = c->options->is_online ? ERR_OK : files_check(c, next_body);
	return err;
}
