/* What all clients are made of: a loop, one fiber that reads like the protocol, patience.
 *
 * A client never gives up: a server that is away comes back, and then it must have kept its word.
 */
#include "net/conn.h"
#include "sim/world.h"

enum { CONNECT_SECONDS = 10, SILENCE_SECONDS = 200 };

static void client_fiber(void *arg)
{
	struct client *c = arg;

	c->run(c);
	/* What it put into the ledger lies in its memory: it stays. */
	while (fiber_suspend(c->loop, LOOP_NEVER) == ERR_OK)
		;
}

int client_main(void *arg)
{
	struct client *c = arg;
	enum err err = loop_new(&c->loop);

	if (!err)
		err = fiber_spawn(c->loop, client_fiber, c);
	if (!err)
		err = loop_run(c->loop);
	loop_free(c->loop);
	return err ? 1 : 0;
}

void client_wait(struct client *c, unsigned ms)
{
	if (fiber_sleep(c->loop, MILLISECONDS(ms)))
		panic("sim: a client was told to stop");
}

bool client_sleep(struct client *c, unsigned ms)
{
	client_wait(c, ms);
	return !c->world->is_over;
}

struct conn *client_connect(struct client *c, const struct addr *to)
{
	struct conn *conn = NULL;
	enum err err = conn_connect(c->loop, to, NULL, loop_now(c->loop) + SECONDS(CONNECT_SECONDS),
				    &conn);

	if (err) {
		(void)client_sleep(c, 50 + chance_below(&c->chance, 300));
		return NULL;
	}
	conn_set_deadline(conn, loop_now(c->loop) + SECONDS(SILENCE_SECONDS));
	return conn;
}
