/* What the store tells about itself: figures for `posthorn status`, and a dump for tests and `fsck`. */
#include "store/store_priv.h"

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
	figure(out, "overlay_bytes", overlay_bytes(kv->young) + (kv->old ? overlay_bytes(kv->old) : 0));
	figure(out, "overlay_keys", overlay_count(kv->young) + (kv->old ? overlay_count(kv->old) : 0));
	figure(out, "leases", s->lease_count);
	figure(out, "transactions", s->txn_count);
	figure(out, "transaction_bytes", s->txn_bytes);
	figure(out, "free_bytes", space.free);
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
