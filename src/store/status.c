/* What the store tells about itself: figures for `posthorn status`, and a dump for tests and
 * `fsck`. */
#include "store/store_priv.h"

enum { COUNTED_MAX = 20000 };

static unsigned percentile(const struct kv_counts *c, unsigned percent)
{
	uint64_t all = 0, sum = 0;

	for (unsigned i = 0; i < KV_LATENCIES; i++)
		all += c->latency[i];
	for (unsigned i = 0; i < KV_LATENCIES; i++) {
		sum += c->latency[i];
		if (sum && sum * 100 >= all * percent)
			return 1u << i;
	}
	return 0;
}

static void figure(struct buf *out, const char *name, uint64_t value)
{
	buf_printf(out, ",\"%s\":%llu", name, (unsigned long long)value);
}

/* Records of the queue by state. A long queue is counted in part: whoever asks is answered by the
 * loop that answers everybody. */
static void queue_figures(struct store *s, struct buf *out)
{
	struct key prefix = key_make(KIND_QUEUE);
	uint64_t count = 0, due = 0, deferred = 0, failed = 0, held = 0, other = 0, numbers[3];
	int64_t now = os_wall_us(), oldest = now;
	struct kv_cursor c;
	struct queue_item q;
	str key, value;
	enum err err =
		kv_cursor_open(s->kv, KV_DURABLE, key_str(&prefix), key_str(&prefix), false, &c);

	while (!err && count < COUNTED_MAX && !(err = kv_cursor_next(&c, &key, &value))) {
		if (!key_parse(key, KIND_QUEUE, 1, numbers) ||
		    queue_item_get(value, numbers[0], &q))
			break;
		count++;
		oldest = MIN(oldest, q.created_us);
		due += q.state == QUEUE_DUE;
		deferred += q.state == QUEUE_DEFERRED;
		failed += q.state == QUEUE_FAILED;
		held += q.state == QUEUE_HELD;
	}
	kv_cursor_close(&c);
	other = count - due - deferred - failed - held;
	figure(out, "queue_due", due);
	figure(out, "queue_deferred", deferred);
	figure(out, "queue_failed", failed);
	figure(out, "queue_held", held);
	figure(out, "queue_notices", other);
	figure(out, "queue_oldest_s", (uint64_t)(now - oldest) / 1000000);
	buf_printf(out, ",\"queue_has_more\":%s", count == COUNTED_MAX ? "true" : "false");
}

/* What lies in the store's folder, in bytes. */
static void size_figures(struct store *s, struct buf *out)
{
	struct arena *a = arena_new(64 * 1024 * 1024);
	const struct compaction *c = &s->compact;
	char name[SEGMENT_NAME_SIZE];
	uint64_t bytes = 0, filled = 0;
	struct os_stat st;
	uint32_t *numbers;
	size_t count = 0;

	if (!a || segment_list(s->options.dir, a, &numbers, &count))
		count = 0;
	for (size_t i = 0; i < count; i++) {
		segment_name(name, numbers[i]);
		if (os_stat(s->options.dir, name, &st))
			continue;
		bytes += st.size;
		filled += !segment_is_emptied(st.size);
	}
	arena_free(a);
	figure(out, "segments", filled);
	figure(out, "log_bytes", bytes);
	/* Of the segments that are closed, when compaction last looked. */
	figure(out, "wanted_bytes", c->wanted);
	figure(out, "wasted_bytes", c->wasted);
	figure(out, "compacted_segments", c->freed);
	figure(out, "moved_bytes", c->moved);
	figure(out, "compressed_away_bytes", c->saved);
	figure(out, "expired", s->expired);
	figure(out, "index_bytes", index_size(s->kv->index));
}

void store_status(struct store *s, struct buf *out)
{
	const struct kv *kv = s->kv;
	const struct kv_counts *c = &kv->counts;
	struct os_space space = { .free = 0 };

	if (os_space(s->options.dir, &space))
		space.free = 0;
	buf_printf(out, "\"commits\":%llu", (unsigned long long)c->commits);
	figure(out, "frames", c->frames);
	figure(out, "syncs", c->syncs);
	figure(out, "bytes", c->bytes);
	figure(out, "failed", c->failed);
	figure(out, "commit_p50_us", percentile(c, 50));
	figure(out, "commit_p99_us", percentile(c, 99));
	figure(out, "segment", position_segment(kv->writer.durable));
	figure(out, "segments_freed", s->freed_segments);
	figure(out, "position", kv->writer.durable);
	figure(out, "checkpoint_position", kv->covered);
	figure(out, "checkpoints", c->checkpoints);
	figure(out, "overlay_bytes",
	       overlay_bytes(kv->young) + (kv->old ? overlay_bytes(kv->old) : 0));
	figure(out, "overlay_keys",
	       overlay_count(kv->young) + (kv->old ? overlay_count(kv->old) : 0));
	figure(out, "leases", s->lease_count);
	figure(out, "transactions", s->txn_count);
	figure(out, "transaction_bytes", s->txn_bytes);
	figure(out, "free_bytes", space.free);
	size_figures(s, out);
	queue_figures(s, out);
	kv_release(s->kv);
	buf_printf(out, ",\"full\":%s,\"reserve\":%s", kv->is_full ? "true" : "false",
		   kv->writer.has_reserve ? "true" : "false");
}

static void hex(struct buf *out, str s)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < s.n; i++) {
		buf_add_char(out, digits[(unsigned char)s.p[i] >> 4]);
		buf_add_char(out, digits[(unsigned char)s.p[i] & 15]);
	}
}

enum err store_dump(struct store *s, struct buf *out)
{
	struct kv_cursor c;
	str key, value;
	enum err err = kv_cursor_open(s->kv, KV_DURABLE, STR_EMPTY, STR_EMPTY, false, &c);

	while (!err && !(err = kv_cursor_next(&c, &key, &value))) {
		if (key.n && key.p[0] == KIND_INDEX)
			continue;
		hex(out, key);
		buf_add_char(out, ' ');
		hex(out, value);
		buf_add_char(out, '\n');
	}
	kv_cursor_close(&c);
	kv_release(s->kv);
	if (err != ERR_EOF)
		return err;
	return buf_failed(out) ? ERR_NO_MEMORY : ERR_OK;
}
