/* The pieces below the engine: checksums, headers, records, keys, values, bodies, the overlay. */
#include "store/body.h"
#include "store/crc32c.h"
#include "store/format_priv.h"
#include "store/overlay.h"
#include "store/records_priv.h"

#include "base/os.h"
#include "base/tap.h"

#include <stdlib.h>

static void test_crc(void)
{
	char bytes[100];
	unsigned differ = 0;

	tap_group("crc32c");
	/* RFC 3720 B.4 */
	memset(bytes, 0, 32);
	EQ(crc32c(0, str_of(bytes, 32)), 0x8a9136aau);
	memset(bytes, 0xff, 32);
	EQ(crc32c(0, str_of(bytes, 32)), 0x62a8ab43u);
	for (int i = 0; i < 32; i++)
		bytes[i] = (char)i;
	EQ(crc32c(0, str_of(bytes, 32)), 0x46dd794eu);
	EQ(crc32c_by_table(0, str_of(bytes, 32)), 0x46dd794eu);
	EQ(crc32c(crc32c(0, str_of(bytes, 7)), str_of(bytes + 7, 25)), 0x46dd794eu);
	for (size_t n = 0; n < sizeof(bytes); n++) {
		bytes[n] = (char)(n * 37);
		differ += crc32c(0, str_of(bytes, n)) != crc32c_by_table(0, str_of(bytes, n));
	}
	EQ(differ, 0);
}

static void test_headers(void)
{
	char bytes[SEGMENT_HEADER_SIZE], frame[FRAME_HEADER_SIZE];
	struct segment_header h = { .segment = 7,
				    .size = 1 << 20,
				    .predecessor = 6,
				    .predecessor_end = 8192,
				    .chain = 5,
				    .number = 77,
				    .created_us = -5,
				    .features_may = 8 },
			      got;
	struct frame_header f = { .crc = 1,
				  .chain = 2,
				  .flags = 0x100,
				  .position = position_of(7, 4096),
				  .number = 78,
				  .durable = 9,
				  .records_size = 5000,
				  .record_count = 3,
				  .blobs_size = 100,
				  .blobs_crc = 4,
				  .time_us = 11,
				  .store = 12 },
			    got_frame;
	unsigned accepted = 0;

	tap_group("headers");
	segment_header_put(bytes, &h);
	EQ(segment_header_get(str_of(bytes, sizeof(bytes)), &got), ERR_OK);
	EQ(got.predecessor_end, 8192);
	EQ(got.created_us, -5);
	EQ(got.features_may, 8);
	for (size_t i = 0; i < 104; i++) {
		bytes[i] ^= 4;
		accepted += segment_header_get(str_of(bytes, sizeof(bytes)), &got) == ERR_OK;
		bytes[i] ^= 4;
	}
	EQ(accepted, 0);
	EQ(segment_header_get(str_of(bytes, sizeof(bytes) - 1), &got), ERR_DAMAGED);
	h.features_must = 1;
	segment_header_put(bytes, &h);
	EQ(segment_header_get(str_of(bytes, sizeof(bytes)), &got), ERR_UNSUPPORTED);
	frame_header_put(frame, &f);
	EQ(frame_header_get(str_of(frame, sizeof(frame)), &got_frame), ERR_OK);
	EQ(got_frame.position, f.position);
	EQ(got_frame.blobs_crc, 4);
	EQ(frame_size(&got_frame), 8192);
	EQ(frame_header_get(str_of(frame, sizeof(frame) - 1), &got_frame), ERR_DAMAGED);
}

static void test_records(void)
{
	struct buf b;
	struct record r;
	str rest;

	tap_group("records");
	buf_init(&b, 4096);
	record_put(&b, RECORD_PUT, S("key"), S("value"));
	record_put(&b, RECORD_DELETE, S("other"), STR_EMPTY);
	record_put(&b, RECORD_PUT, S("k"), STR_EMPTY);
	rest = buf_str(&b);
	EQ(record_get(&rest, &r), ERR_OK);
	STR_EQ(r.key, S("key"));
	STR_EQ(r.value, S("value"));
	EQ(record_get(&rest, &r), ERR_OK);
	EQ(r.op, RECORD_DELETE);
	EQ(record_get(&rest, &r), ERR_OK);
	EQ(r.value.n, 0);
	EQ(record_get(&rest, &r), ERR_EOF);
	rest = str_head(buf_str(&b), 4);
	EQ(record_get(&rest, &r), ERR_DAMAGED);
	rest = S("\3\1k\1v");
	EQ(record_get(&rest, &r), ERR_UNSUPPORTED);
	rest = S("\x83\1k\1v");
	EQ(record_get(&rest, &r), ERR_OK);
	rest = S("\1\0\0");
	EQ(record_get(&rest, &r), ERR_DAMAGED);
	buf_free(&b);
}

static void test_keys(void)
{
	static const uint64_t values[] = {
		0,	   1,	      255, 256, 65535, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1,
		INT64_MAX, UINT64_MAX
	};
	unsigned wrong = 0;

	tap_group("keys");
	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		for (size_t j = 0; j < ARRAY_LEN(values); j++) {
			struct key a = key_make2(KIND_ROW, values[i], 9),
				   b = key_make2(KIND_ROW, values[j], 8);
			int order = str_cmp(key_str(&a), key_str(&b));

			wrong += i < j ? order >= 0 : order <= 0;
		}
		uint64_t back[3];
		struct key k = key_make3(KIND_ROW, values[i], 3, values[i]);

		wrong += !key_parse(key_str(&k), KIND_ROW, 3, back) || back[0] != values[i] ||
			 back[2] != values[i];
		wrong += key_parse(key_str(&k), KIND_ROW, 2, back) ||
			 key_parse(key_str(&k), KIND_BODY, 3, back);
	}
	EQ(wrong, 0);
}

static void test_values(void)
{
	struct row row = { .uid = 3,
			   .modseq = 1000,
			   .flags = { { MSG_FLAG_SEEN, 1ull << 63 } },
			   .body = 77,
			   .email = 12,
			   .thread = 5,
			   .size = 10240,
			   .received_us = -1,
			   .zone = -330,
			   .cold = { 4, 5 },
			   .cold_size = 600,
			   .key = { 9 } },
		   got;
	struct queue_item q = { .id = 5,
				.message = 6,
				.body = 7,
				.sender = S("s"),
				.address = S("a"),
				.reply = S("r"),
				.state = QUEUE_DEFERRED,
				.requires_tls = true,
				.due_us = 99,
				.attempts = 4,
				.key = { 1 } },
			  got_q;
	struct buf b;
	uint32_t segment;
	uint64_t bytes;
	struct key k = key_make3(KIND_ROW, 1, 1, 3);

	tap_group("values");
	buf_init(&b, 4096);
	row_put(&b, &row);
	OK(buf_len(&b) < 80);
	EQ(row_get(buf_str(&b), 3, &got), ERR_OK);
	OK(memcmp(&row, &got, sizeof(row)) == 0);
	EQ(row_get(str_head(buf_str(&b), buf_len(&b) - 1), 3, &got), ERR_DAMAGED);
	OK(record_refers(key_str(&k), buf_str(&b), &segment, &bytes) && segment == 4 &&
	   bytes == 600);
	buf_add(&b, S("of a later version"));
	EQ(row_get(buf_str(&b), 3, &got), ERR_OK);
	buf_clear(&b);
	queue_item_put(&b, &q);
	EQ(queue_item_get(buf_str(&b), 5, &got_q), ERR_OK);
	STR_EQ(got_q.reply, S("r"));
	EQ(got_q.attempts, 4);
	OK(got_q.requires_tls && !got_q.is_smtputf8);
	for (size_t n = 0; n < buf_len(&b); n++)
		if (queue_item_get(str_head(buf_str(&b), n), 5, &got_q) == ERR_OK)
			OK(!"a shorter one was taken");
	buf_free(&b);
}

static void test_bodies(void)
{
	static const size_t sizes[] = { 0,
					1,
					BODY_CHUNK - 1,
					BODY_CHUNK,
					BODY_CHUNK + 1,
					3 * BODY_CHUNK,
					3 * BODY_CHUNK + 77 };
	struct body_cipher *c = body_cipher_new();
	char *plain = malloc(4 * BODY_CHUNK), *sealed = malloc(5 * BODY_CHUNK),
	     *got = malloc(4 * BODY_CHUNK);

	tap_group("bodies");
	for (size_t i = 0; i < 4 * BODY_CHUNK; i++)
		plain[i] = (char)(i * 31 + i / 999);
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		size_t size = sizes[s], chunks = size ? (size + BODY_CHUNK - 1) / BODY_CHUNK : 1,
		       at = 0;
		struct rec_body_location where = { .segment = 1,
						   .stored = body_stored_size(size),
						   .size = size,
						   .key = { 1, 2, 3 } };
		int fd;

		for (size_t i = 0; i < chunks; i++) {
			size_t n = MIN((size_t)BODY_CHUNK, size - i * BODY_CHUNK);

			body_seal_chunk(c, where.key, (uint32_t)i, i + 1 == chunks,
					str_of(plain + i * BODY_CHUNK, n), sealed + at);
			at += n + BODY_TAG;
		}
		EQ(at, where.stored);
		EQ(os_memfd(str_of(sealed, at), true, &fd), ERR_OK);
		EQ(body_read(c, fd, &where, 0, size, got), ERR_OK);
		OK(memcmp(got, plain, size) == 0);
		if (size > 10) {
			EQ(body_read(c, fd, &where, size - 7, 7, got), ERR_OK);
			OK(memcmp(got, plain + size - 7, 7) == 0);
			EQ(body_read(c, fd, &where, size - 7, 8, got), ERR_RANGE);
			where.key[0] ^= 1;
			EQ(body_read(c, fd, &where, 0, 5, got), ERR_DAMAGED);
		}
		os_close(fd);
		/* Cut to whole chunks: the last one knows that it is not the last. */
		if (size > BODY_CHUNK) {
			where.stored = body_stored_size(BODY_CHUNK);
			where.size = BODY_CHUNK;
			where.key[0] = 1;
			EQ(os_memfd(str_of(sealed, where.stored), true, &fd), ERR_OK);
			EQ(body_read(c, fd, &where, 0, 5, got), ERR_DAMAGED);
			os_close(fd);
		}
	}
	free(plain);
	free(sealed);
	free(got);
	body_cipher_free(c);
}

static void test_overlay(void)
{
	struct overlay *o = overlay_new(64 * 1024 * 1024);
	struct entry *e, *before = NULL;
	struct version *v;
	unsigned count = 0, disorder = 0;
	char bytes[8];

	tap_group("overlay");
	for (unsigned i = 0; i < 5000; i++) {
		put_le32(bytes, i * 2654435761u);
		if (overlay_push(o, str_of(bytes, 4), i + 1, 0, false, S("value"), &e, &v))
			panic("overlay");
	}
	EQ(overlay_count(o), 5000);
	for (e = overlay_seek(o, STR_EMPTY); e; before = e, e = entry_next(e), count++)
		disorder += before && str_cmp(entry_key(before), entry_key(e)) >= 0;
	EQ(count, 5000);
	EQ(disorder, 0);
	OK(!overlay_find(o, S("nothing")));
	EQ(overlay_push(o, S("k"), 10, 0, false, S("one"), &e, &v), ERR_OK);
	EQ(overlay_push(o, S("k"), 20, 10, true, STR_EMPTY, &e, &v), ERR_OK);
	STR_EQ(str_of(entry_version(e, 19)->value, 3), S("one"));
	OK(entry_version(e, 20)->is_deleted);
	OK(!entry_version(e, 9));
	overlay_pop(e, 19);
	EQ(e->newest->serial, 10);
	/* Memory of what nobody can see is used again. */
	size_t bytes_used = 0;
	for (unsigned i = 0; i < 1000; i++) {
		EQ(overlay_push(o, S("k"), 100 + i, 99 + i, false, S("two"), &e, &v) ? 1 : 0, 0);
		if (i == 10)
			bytes_used = overlay_bytes(o);
	}
	EQ(overlay_bytes(o), bytes_used);
	overlay_free(o);
}

int main(void)
{
	test_crc();
	test_headers();
	test_records();
	test_keys();
	test_values();
	test_bodies();
	test_overlay();
	return tap_done();
}
