/* Limits per client address. */
#include "roles/front_clients.h"

#include "base/loop.h"
#include "base/tap.h"

static struct addr ip4(uint8_t last)
{
	return (struct addr){ .family = ADDR_IP4, .ip = { 192, 0, 2, last } };
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
	front_clients_end(t, &a);
	EQ(front_clients_begin(t, &a, 0, 2, 0), FRONT_ADMITTED);
	tap_group("networks");
	EQ(front_clients_begin(t, &n1, 0, 1, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(t, &n2, 0, 1, 0), FRONT_TOO_MANY);
	EQ(front_clients_begin(t, &n3, 0, 1, 0), FRONT_ADMITTED);
	tap_group("rate");
	for (int i = 0; i < 3; i++) {
		EQ(front_clients_begin(t, &c, SECONDS(60), 9, 3), FRONT_ADMITTED);
		front_clients_end(t, &c);
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
	front_clients_end(t, &a);
	EQ(front_clients_begin(t, &c, 0, 1, 0), FRONT_ADMITTED);
	EQ(front_clients_begin(t, &b, 0, 1, 0), FRONT_TOO_MANY);
	front_clients_free(t);
	return tap_done();
}
