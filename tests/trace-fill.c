/* trace-fill DIR MESSAGES: a history of so many messages, written by the trace's own writer, for
 * tests/full/trace.t.
 *
 * Each message is taken and stored: two events, as one delivery to one mailbox has, from one of
 * SENDERS addresses to one of RECIPIENTS. Their times are evenly spread over the last day. Prints
 * IDS ids, evenly spread, and the last. */
#include "roles/trace_log.h"

#include <stdio.h>

enum {
	IDS = 20,
	SENDERS = 50000,
	RECIPIENTS = 200,
	DAY_SECONDS = 86400,
	ACCEPTED = 6,
	STORED = 50
};

static void add(struct trace_log *t, uint64_t number, uint64_t message, int64_t at_us)
{
	char sender[64], recipient[64];
	struct msg_trace_event e = { .message = message, .at_us = at_us, .event = ACCEPTED };

	snprintf(sender, sizeof(sender), "sender%u@example.org", (unsigned)(number % SENDERS));
	snprintf(recipient, sizeof(recipient), "user%u@example.test",
		 (unsigned)(number % RECIPIENTS));
	e.sender = str_from_c(sender);
	e.recipient = str_from_c(recipient);
	e.text = S("10240 bytes from 192.0.2.1 (mail.example.org), ESMTPS, 250 2.0.0");
	trace_log_add(t, &e);
	e.sender = STR_EMPTY;
	e.event = STORED;
	e.at_us += 1500;
	e.text = S("INBOX");
	trace_log_add(t, &e);
}

int main(int argc, char **argv)
{
	struct log log;
	struct trace_log *t;
	struct msgid_source ids = { .instance = 1 };
	uint64_t count, id;
	int folder;
	int64_t now = os_wall_us();
	char text[MSGID_TEXT + 1];

	log_init(&log, LOG_TO_STDERR, LOG_LEVEL_WARN, "trace-fill");
	if (argc != 3 || str_to_u64(str_from_c(argv[2]), 100000000, &count) || count == 0 ||
	    os_open(-1, argv[1], OS_READ | OS_DIRECTORY, &folder) ||
	    trace_log_open(folder, INT64_MAX / 2, UINT64_MAX, &log, &t)) {
		fputs("usage: trace-fill DIR MESSAGES\n", stderr);
		return 1;
	}
	for (uint64_t i = 0; i < count; i++) {
		int64_t at = now - (int64_t)((count - i) * DAY_SECONDS * 1000000 / count);

		id = msgid_next(&ids, at);
		add(t, i, id, at);
		if (i % (count / IDS + 1) == 0 || i == count - 1)
			puts(msgid_text(id, text).p);
	}
	if (trace_log_flush(t))
		return 1;
	trace_log_close(t);
	return 0;
}
