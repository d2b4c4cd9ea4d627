/* Everything that is read from the disk: headers, records, keys and values, on any bytes. */
#include "store/format_priv.h"
#include "store/records_priv.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void values(str value)
{
	struct buf b;
	struct row row, again;
	struct queue_item q;
	struct account a;
	struct mailbox m;
	struct body d;
	struct counters c;

	buf_init(&b, 1 << 20);
	if (row_get(value, 1, &row) == ERR_OK) {
		row_put(&b, &row);
		assert(row_get(buf_str(&b), 1, &again) == ERR_OK && again.size == row.size &&
		       again.thread == row.thread);
	}
	if (queue_item_get(value, 1, &q) == ERR_OK) {
		buf_clear(&b);
		queue_item_put(&b, &q);
		assert(queue_item_get(buf_str(&b), 1, &q) == ERR_OK);
	}
	if (mailbox_get(value, 1, &m) == ERR_OK) {
		buf_clear(&b);
		mailbox_put(&b, &m);
		assert(mailbox_get(buf_str(&b), 1, &m) == ERR_OK);
	}
	if (account_get(value, &a) == ERR_OK && body_get(value, &d) == ERR_OK &&
	    counters_get(value, &c) == ERR_OK)
		buf_clear(&b);
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char padded[SEGMENT_HEADER_SIZE] = { 0 };
	str all = str_of(data, size), rest = all;
	struct segment_header sh;
	struct frame_header fh;
	struct identity id;
	struct record r;
	uint64_t numbers[3], bytes;
	uint32_t segment;

	memcpy(padded, data, MIN(size, sizeof(padded)));
	if (segment_header_get(str_of(padded, sizeof(padded)), &sh) == ERR_OK)
		assert(sh.features_must == 0);
	if (frame_header_get(all, &fh) == ERR_OK)
		assert(frame_size(&fh) % LOG_BLOCK == 0 && frame_size(&fh) >= fh.records_size);
	if (identity_get(all, &id) == ERR_OK)
		assert(size == IDENTITY_SIZE);
	while (record_get(&rest, &r) == ERR_OK) {
		(void)key_parse(r.key, KIND_ROW, 3, numbers);
		(void)key_parse(r.key, KIND_QUEUE, 1, numbers);
		(void)record_refers(r.key, r.value, &segment, &bytes);
		values(r.value);
	}
	values(all);
	return 0;
}
