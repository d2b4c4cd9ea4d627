/* Views against a model: random changes, random moments of telling; every client's picture, kept as
 * RFC 3501 says a client keeps it, must be the server's. */
#include "imap/view.h"

#include "base/tap.h"
#include "store/types.h"

#include <stdlib.h>

enum { CLIENTS = 3, UIDS_MAX = 400 };

/* What a client believes: the UIDs by sequence number, and their flags. */
struct client {
	struct imap_selected selected;
	uint32_t uids[UIDS_MAX];
	uint64_t flags[UIDS_MAX];
	uint32_t exists;
	bool is_open;
};

struct model {
	struct imap_view *view;
	struct client clients[CLIENTS];
	struct arena *arena;
	bool alive[UIDS_MAX];
	uint64_t flags[UIDS_MAX];
	uint32_t next_uid;
	uint64_t modseq, random;
};

static uint32_t chance(struct model *m, uint32_t n)
{
	m->random = m->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(m->random >> 33) % n;
}

static void add(struct model *m)
{
	struct imap_row row = { .uid = m->next_uid, .modseq = ++m->modseq };

	if (m->next_uid >= UIDS_MAX)
		return;
	m->alive[m->next_uid] = true;
	m->flags[m->next_uid++] = 0;
	if (imap_view_put(m->view, &row))
		panic("put");
	m->view->modseq = m->modseq;
}

static void change(struct model *m)
{
	uint32_t uid = chance(m, m->next_uid);
	struct imap_row row = { .uid = uid };

	if (!uid || !m->alive[uid])
		return;
	m->flags[uid] = chance(m, 4);
	row.flags[0] = m->flags[uid];
	row.modseq = ++m->modseq;
	if (imap_view_put(m->view, &row))
		panic("put");
	m->view->modseq = m->modseq;
}

static void expunge(struct model *m)
{
	uint32_t first = chance(m, m->next_uid), last = first + chance(m, 4);

	m->view->modseq = ++m->modseq;
	for (uint32_t uid = first; uid <= last && uid < m->next_uid; uid++)
		m->alive[uid] = false;
	imap_view_expunge(m->view, first, last);
}

/* The client reads the news as the RFC says. */
static bool hear(struct model *m, struct client *c, bool may_expunge)
{
	struct imap_news news;

	if (imap_selected_news(&c->selected, may_expunge, 0, m->arena, &news))
		return false;
	if (!may_expunge && news.expunged_count)
		return false;
	for (size_t i = 0; i < news.expunged_count; i++) {
		uint32_t seq = news.expunged[i];

		if (seq < 1 || seq > c->exists)
			return false;
		for (uint32_t k = seq; k < c->exists; k++) {
			c->uids[k - 1] = c->uids[k];
			c->flags[k - 1] = c->flags[k];
		}
		c->exists--;
	}
	for (; c->exists < c->selected.exists; c->exists++) {
		const struct imap_row *row = imap_selected_row(&c->selected, c->exists + 1);

		c->uids[c->exists] = row->uid;
		c->flags[c->exists] = row->flags[0];
	}
	for (size_t i = 0; i < news.flags_count; i++)
		c->flags[news.flags[i] - 1] =
			imap_selected_row(&c->selected, news.flags[i])->flags[0];
	arena_reset(m->arena);
	return c->exists == c->selected.exists;
}

/* Its numbers mean what it thinks; and after full news, it knows everything. */
static bool agrees(const struct model *m, const struct client *c, bool is_complete)
{
	uint32_t seen = 0;

	for (uint32_t seq = 1; seq <= c->exists; seq++) {
		const struct imap_row *row = imap_selected_row(&c->selected, seq);

		if (row->uid != c->uids[seq - 1] ||
		    imap_selected_find(&c->selected, row->uid) != seq)
			return false;
		if (is_complete && (!m->alive[row->uid] || m->flags[row->uid] != c->flags[seq - 1]))
			return false;
	}
	for (uint32_t uid = 1; uid < m->next_uid; uid++)
		seen += m->alive[uid];
	return !is_complete || seen == c->exists;
}

static bool open_client(struct model *m, struct client *c)
{
	if (imap_selected_begin(&c->selected, m->view, chance(m, 2)))
		return false;
	c->is_open = true;
	c->exists = c->selected.exists;
	for (uint32_t i = 0; i < c->exists; i++) {
		c->uids[i] = imap_selected_row(&c->selected, i + 1)->uid;
		c->flags[i] = imap_selected_row(&c->selected, i + 1)->flags[0];
	}
	return agrees(m, c, true);
}

/* Goes away as a parked record and comes back, the rows that went meanwhile put back from the
 * store's tombstones. */
static bool sleep_and_wake(struct model *m, struct client *c)
{
	uint32_t exists = c->selected.exists, uidnext = imap_selected_max_uid(&c->selected) + 1;
	uint64_t modseq = c->selected.modseq;
	struct imap_range gone[UIDS_MAX];
	struct imap_set set = { gone, 0 };
	bool before[UIDS_MAX];
	size_t n = 0;

	if (imap_selected_has_news(&c->selected))
		return true;
	imap_selected_end(&c->selected);
	memcpy(before, m->alive, sizeof(before));
	for (int i = 0; i < 10; i++) {
		if (chance(m, 2))
			change(m);
		else
			expunge(m);
		add(m);
	}
	for (uint32_t uid = 1; uid < m->next_uid; uid++)
		if (before[uid] && !m->alive[uid])
			gone[n++] = (struct imap_range){ uid, uid };
	set.count = n;
	if (imap_view_restore_gone(m->view, gone, n, uidnext) ||
	    imap_selected_resume(&c->selected, m->view, false, uidnext, modseq, exists, &set))
		return false;
	return agrees(m, c, false) && hear(m, c, true) && agrees(m, c, true);
}

static bool step(struct model *m)
{
	struct client *c = &m->clients[chance(m, CLIENTS)];
	bool may_expunge;

	switch (chance(m, 8)) {
	case 0:
		add(m);
		return true;
	case 1:
	case 2:
		change(m);
		return true;
	case 3:
		expunge(m);
		return true;
	case 4:
		if (c->is_open && chance(m, 4) == 0) {
			imap_selected_end(&c->selected);
			c->is_open = false;
			return true;
		}
		return c->is_open || open_client(m, c);
	case 5:
		return !c->is_open || chance(m, 3) || sleep_and_wake(m, c);
	default:
		if (!c->is_open)
			return true;
		may_expunge = chance(m, 2);
		return hear(m, c, may_expunge) && agrees(m, c, may_expunge);
	}
}

static bool run_model(uint64_t seed)
{
	struct model *m = calloc(1, sizeof(*m));
	bool good = true;

	m->random = seed;
	m->next_uid = 1;
	m->arena = arena_new(16 * 1024 * 1024);
	m->view = imap_view_new(1);
	m->view->uidnext = 1;
	m->view->recent_from = 1;
	for (int i = 0; i < 2000 && good; i++)
		good = step(m);
	for (size_t i = 0; i < CLIENTS; i++)
		imap_selected_end(&m->clients[i].selected);
	imap_view_free(m->view);
	arena_free(m->arena);
	free(m);
	return good;
}

static void test_model(void)
{
	uint64_t bad = 0;

	tap_group("model");
	for (uint64_t seed = 1; seed <= 200 && !bad; seed++)
		if (!run_model(seed))
			bad = seed;
	EQ(bad, 0);
}

static void fill(struct imap_view *v, uint32_t n)
{
	for (uint32_t uid = 1; uid <= n; uid++)
		if (imap_view_put(v, &(struct imap_row){ .uid = uid * 10, .modseq = uid }))
			panic("put");
	v->modseq = n;
}

static void test_numbers(void)
{
	struct imap_view *v = imap_view_new(1);
	struct arena *a = arena_new(1024 * 1024);
	struct imap_selected s;
	struct imap_range r = { 15, IMAP_STAR };
	struct imap_set set = { &r, 1 }, out;

	tap_group("numbers");
	v->recent_from = 25;
	fill(v, 5);
	EQ(imap_selected_begin(&s, v, false), ERR_OK);
	EQ(s.exists, 5);
	EQ(imap_selected_max_uid(&s), 50);
	EQ(imap_selected_find(&s, 11), 2);
	EQ(imap_selected_find(&s, 51), 6);
	EQ(imap_selected_recent(&s), 3);
	OK(imap_selected_is_recent(&s, 30));
	OK(!imap_selected_is_recent(&s, 20));
	EQ(imap_selected_set(&s, &set, true, a, &out), ERR_OK);
	EQ(out.count, 1);
	EQ(out.ranges[0].first, 2);
	EQ(out.ranges[0].last, 5);
	r = (struct imap_range){ 6, 6 };
	EQ(imap_selected_set(&s, &set, false, a, &out), ERR_RANGE);
	r = (struct imap_range){ 4, IMAP_STAR };
	EQ(imap_selected_set(&s, &set, false, a, &out), ERR_OK);
	EQ(out.ranges[0].last, 5);
	imap_selected_end(&s);
	imap_view_free(v);
	arena_free(a);
}

static void test_own_change(void)
{
	struct imap_view *v = imap_view_new(1);
	struct arena *a = arena_new(1024 * 1024);
	uint64_t seen[2] = { MSG_FLAG_SEEN, 0 };
	struct imap_selected s, other;
	struct imap_news news;

	tap_group("own change");
	fill(v, 3);
	EQ(imap_selected_begin(&s, v, false), ERR_OK);
	EQ(imap_selected_begin(&other, v, false), ERR_OK);
	imap_view_set_flags(v, 1, seen, 7);
	EQ(imap_selected_news(&s, true, 7, a, &news), ERR_OK);
	EQ(news.flags_count, 0);
	EQ(imap_selected_news(&other, true, 0, a, &news), ERR_OK);
	EQ(news.flags_count, 1);
	EQ(news.flags[0], 2);
	imap_selected_end(&s);
	imap_selected_end(&other);
	imap_view_free(v);
	arena_free(a);
}

/* More changes than the log holds: a client that fell behind still hears of all. */
static void test_behind(void)
{
	struct imap_view *v = imap_view_new(1);
	struct arena *a = arena_new(16 * 1024 * 1024);
	struct imap_selected s;
	struct imap_news news;

	tap_group("behind");
	fill(v, 10);
	EQ(imap_selected_begin(&s, v, false), ERR_OK);
	for (uint64_t i = 0; i < IMAP_CHANGES_MAX + 5; i++)
		imap_view_set_flags(v, i % 5, (uint64_t[2]){ i & 1 ? 1 : 2, i }, 100 + i);
	imap_view_expunge(v, 100, 100);
	EQ(imap_selected_news(&s, true, 0, a, &news), ERR_OK);
	EQ(news.flags_count, 5);
	EQ(news.expunged_count, 1);
	EQ(news.expunged[0], 10);
	EQ(s.exists, 9);
	imap_selected_end(&s);
	imap_view_free(v);
	arena_free(a);
}

int main(void)
{
	test_numbers();
	test_own_change();
	test_behind();
	test_model();
	return tap_done();
}
