/* Limits per client address. */
#include "roles/front_clients.h"

#include "base/buf.h"
#include "base/loop.h"
#include "base/os.h"
#include "base/tap.h"

static struct addr ip4(uint8_t last)
{
	return (struct addr){ .family = ADDR_IP4, .ip = { 192, 0, 2, last } };
}

/* Two processes with one file: what one admits, the other counts. */
static void test_shared(void)
{
	struct addr a = ip4(1), b = ip4(2);
	struct front_clients *one, *two;
	int64_t now = SECONDS(60);
	int fd, again;

	tap_group("two processes");
	EQ(front_clients_new(100, &one), ERR_OK);
	EQ(front_clients_new(100, &two), ERR_OK);
	EQ(os_memfd(STR_EMPTY, false, &fd), ERR_OK);
	again = os_dup(fd);
	EQ(front_clients_share(one, os_dup(fd), 0), ERR_OK);
	EQ(front_clients_share(two, fd, 1), ERR_OK);
	EQ(front_clients_begin(one, &a, now, 2, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(two, &a, now, 2, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(one, &a, now, 2, 0), FRONT_TOO_MANY);
	EQ(front_clients_begin(two, &a, now, 2, 0), FRONT_TOO_MANY);
	EQ(front_clients_begin(two, &b, now, 2, 0), FRONT_ADMITTED);
	front_clients_end(one, &a, now);
	EQ(front_clients_begin(two, &a, now, 2, 0), FRONT_ADMITTED);
	tap_group("rates of two processes");
	EQ(front_clients_begin(one, &b, now, 9, 2), FRONT_ADMITTED);
	EQ(front_clients_begin(two, &b, now, 9, 2), FRONT_TOO_OFTEN);
	EQ(front_clients_begin(two, &b, now + SECONDS(60), 9, 2), FRONT_ADMITTED);
	OK(front_clients_message(one, &b, now, 2));
	OK(front_clients_message(two, &b, now, 2));
	OK(!front_clients_message(one, &b, now, 2));
	OK(front_clients_message(one, &b, now + SECONDS(60), 2));
	/* One that is started again has no connections. */
	tap_group("a process is replaced");
	front_clients_free(two);
	EQ(front_clients_begin(one, &a, now, 2, 0), FRONT_TOO_MANY);
	EQ(front_clients_new(100, &two), ERR_OK);
	EQ(front_clients_share(two, again, 1), ERR_OK);
	EQ(front_clients_begin(one, &a, now, 2, 0), FRONT_ADMITTED);
	front_clients_free(one);
	front_clients_free(two);
}

/* More clients than the file has entries for: each is counted at least by its process. */
static void test_full_file(void)
{
	struct front_clients *one, *two;
	struct addr a = { .family = ADDR_IP4 };
	unsigned refused = 0, both = 0;
	int fd;

	tap_group("a full file");
	EQ(front_clients_new(20000, &one), ERR_OK);
	EQ(front_clients_new(20000, &two), ERR_OK);
	EQ(os_memfd(STR_EMPTY, false, &fd), ERR_OK);
	EQ(front_clients_share(one, os_dup(fd), 0), ERR_OK);
	EQ(front_clients_share(two, fd, 1), ERR_OK);
	for (unsigned i = 0; i < 20000; i++) {
		put_le32(a.ip, i * 2654435761u);
		refused += front_clients_begin(one, &a, 0, 1, 0) != FRONT_ADMITTED;
	}
	EQ(refused, 0);
	for (unsigned i = 0; i < 20000; i++) {
		put_le32(a.ip, i * 2654435761u);
		both += front_clients_begin(two, &a, 0, 1, 0) == FRONT_ADMITTED;
		refused += front_clients_begin(one, &a, 0, 1, 0) == FRONT_TOO_MANY;
	}
	EQ(refused, 20000);
	OK(both >= 15000 && both < 16500);
	front_clients_free(one);
	front_clients_free(two);
}

int main(void)
{
	struct addr a = ip4(1), b = ip4(2), c = ip4(3),
		    n1 = { .family = ADDR_IP6, .ip = { 0x20, 1, [7] = 1, [15] = 1 } };
	struct addr n2 = n1, n3 = n1;
	struct front_clients *t;

	n2.ip[15] = 9; /* the same /64 */
	n3.ip[7] = 2;  /* another one */
	EQ(front_clients_new(100, &t), ERR_OK);
	tap_group("at once");
	EQ(front_clients_begin(t, &a, 0, 2, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(t, &a, 0, 2, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(t, &a, 0, 2, 0), FRONT_TOO_MANY);
	EQ(front_clients_begin(t, &b, 0, 2, 0), FRONT_ADMITTED);
	front_clients_end(t, &a, 0);
	EQ(front_clients_begin(t, &a, 0, 2, 0), FRONT_ADMITTED);
	tap_group("networks");
	EQ(front_clients_begin(t, &n1, 0, 1, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(t, &n2, 0, 1, 0), FRONT_TOO_MANY);
	EQ(front_clients_begin(t, &n3, 0, 1, 0), FRONT_ADMITTED);
	tap_group("rate");
	for (int i = 0; i < 3; i++) {
		EQ(front_clients_begin(t, &c, SECONDS(60), 9, 3), FRONT_ADMITTED);
		front_clients_end(t, &c, SECONDS(60));
	}
	EQ(front_clients_begin(t, &c, SECONDS(119), 9, 3), FRONT_TOO_OFTEN);
	EQ(front_clients_begin(t, &c, SECONDS(120), 9, 3), FRONT_ADMITTED);
	OK(front_clients_message(t, &c, SECONDS(120), 1));
	OK(!front_clients_message(t, &c, SECONDS(121), 1));
	OK(front_clients_message(t, &c, SECONDS(121), 0));
	OK(front_clients_message(t, &c, SECONDS(180), 1));
	front_clients_free(t);
	tap_group("room");
	EQ(front_clients_new(2, &t), ERR_OK);
	EQ(front_clients_begin(t, &a, 0, 1, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(t, &b, 0, 1, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(t, &c, 0, 1, 0), FRONT_TOO_MANY);
	front_clients_end(t, &a, 0);
	EQ(front_clients_begin(t, &c, 0, 1, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(t, &b, 0, 1, 0), FRONT_TOO_MANY);
	front_clients_free(t);
	test_shared();
	test_full_file();
	return tap_done();
}
