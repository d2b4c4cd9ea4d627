/* The history: what was added is found, across files, restarts, torn tails and removal of the
 * oldest. */
#include "roles/trace_log.h"
#include "base/tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[64];
static int64_t clock_us;
static struct log log_none = { .fd = -1, .level = LOG_LEVEL_ERROR };

static struct trace_log *open_log(uint64_t keep_bytes)
{
	struct trace_log *t = NULL;
	int fd;

	EQ(os_open(-1, folder, OS_READ | OS_DIRECTORY, &fd), ERR_OK);
	EQ(trace_log_open(fd, INT64_MAX / 2, keep_bytes, &log_none, &t), ERR_OK);
	return t;
}

static void add(struct trace_log *t, uint64_t message, const char *sender, const char *recipient,
		const char *text)
{
	trace_log_add(t, &(struct msg_trace_event){ .message = message,
						    .at_us = ++clock_us,
						    .event = 6,
						    .sender = str_from_c(sender),
						    .recipient = str_from_c(recipient),
						    .text = str_from_c(text) });
}

static size_t count_message(struct trace_log *t, uint64_t message)
{
	struct arena *a = arena_new(64 << 20);
	struct trace_found *f;
	size_t n = 0;

	EQ(trace_log_find_message(t, message, a, &f, &n), ERR_OK);
	for (size_t i = 0; i < n; i++)
		if (f[i].message != message)
			OK(!"the right message");
	arena_free(a);
	return n;
}

static size_t count_address(struct trace_log *t, str address, str *last_text, struct arena *a)
{
	struct trace_found *f;
	size_t n = 0;
	uint64_t older;

	EQ(trace_log_find_address(t, address, TRACE_FOUND_MAX, a, &f, &n, &older), ERR_OK);
	for (size_t i = 1; i < n; i++)
		if (f[i].at_us < f[i - 1].at_us)
			OK(!"in order of time");
	if (last_text)
		*last_text = n ? f[n - 1].text : STR_EMPTY;
	return n;
}

/* Two events for each message, as a delivery has, from the first of `messages` on; what is left out
 * is counted. */
static void check_limit(struct trace_log *t, struct arena *a, uint64_t first, uint64_t messages)
{
	struct trace_found *f;
	size_t n = 0;
	uint64_t older;

	EQ(trace_log_find_address(t, S("pair@example.test"), 3, a, &f, &n, &older), ERR_OK);
	EQ(n, 6);
	EQ(older, 2 * (messages - 3));
	for (size_t i = 0; i < n; i++)
		EQ(f[i].message, first + messages - 3 + i / 2);
	EQ(trace_log_find_address(t, S("pair@example.test"), messages, a, &f, &n, &older), ERR_OK);
	EQ(n, 2 * messages);
	EQ(older, 0);
	EQ(trace_log_find_address(t, S("refused@example.test"), 2, a, &f, &n, &older), ERR_OK);
	EQ(n, 2);
	EQ(older, 2);
	STR_EQ(f[1].text, S("4"));
	EQ(trace_log_find_address(t, S("self@example.test"), 9, a, &f, &n, &older), ERR_OK);
	EQ(n, 1);
	EQ(older, 0);
}

/* They are in the file that is written, and then in one that was closed. */
static void test_limit(struct trace_log **t, uint64_t first)
{
	struct arena *a = arena_new(64 << 20);
	const uint64_t messages = 20;
	size_t files;

	tap_group("the newest of an address");
	for (uint64_t i = first; i < first + messages; i++) {
		add(*t, i, "", "pair@example.test", "taken");
		add(*t, i, "", "pair@example.test", "stored");
	}
	for (unsigned i = 1; i <= 4; i++)
		add(*t, 0, "", "refused@example.test", i == 4 ? "4" : "earlier");
	add(*t, 1, "self@example.test", "SELF@example.test", "to oneself");
	check_limit(*t, a, first, messages);
	EQ(trace_log_flush(*t), ERR_OK);
	trace_log_close(*t);
	*t = open_log(UINT64_MAX);
	check_limit(*t, a, first, messages);
	files = trace_log_counts(*t).files;
	for (uint64_t i = 0; trace_log_counts(*t).files == files; i++)
		add(*t, 900000 + i, "sender@example.org", "recipient@example.test", "250 2.0.0 Ok");
	add(*t, 880000, "", "last@example.test", "the last");
	check_limit(*t, a, first, messages);
	arena_free(a);
}

int main(void)
{
	struct arena *a = arena_new(256 << 20);
	struct trace_log *t;
	char name[128], who[64];
	str text;
	int fd;
	size_t size;

	snprintf(folder, sizeof(folder), "/tmp/posthorn-trace-XXXXXX");
	OK(mkdtemp(folder) != NULL);
	t = open_log(UINT64_MAX);
	add(t, 5, "a@example.org", "bob@example.test", "first");
	add(t, 5, "", "bob@example.test", "second");
	add(t, 0, "Spam@Example.org", "bob@example.test", "refused");
	EQ(count_message(t, 5), 2);
	EQ(count_message(t, 6), 0);
	EQ(count_address(t, S("BOB@example.test"), &text, a), 3);
	EQ(count_address(t, S("spam@example.org"), &text, a), 1);
	STR_EQ(text, S("refused"));
	tap_group("many, across files");
	for (uint64_t i = 10; i < 200000; i++) {
		snprintf(who, sizeof(who), "user%u@example.test", (unsigned)(i % 1000));
		add(t, i, "sender@example.org", who,
		    "a text of the usual length: 250 2.0.0 Ok, queued as 0CW3Z9K2M4XQA");
	}
	EQ(trace_log_flush(t), ERR_OK);
	OK(trace_log_counts(t).files > 1);
	EQ(count_message(t, 11), 1);
	EQ(count_message(t, 199999), 1);
	EQ(count_address(t, S("user7@example.test"), NULL, a), 199);
	EQ(count_address(t, S("sender@example.org"), NULL, a), TRACE_FOUND_MAX);
	size = trace_log_counts(t).files;
	trace_log_close(t);
	tap_group("after a restart");
	t = open_log(UINT64_MAX);
	EQ(trace_log_counts(t).files, size);
	EQ(count_message(t, 11), 1);
	EQ(count_message(t, 199999), 1);
	trace_log_close(t);
	tap_group("a torn tail");
	snprintf(name, sizeof(name), "%s/%08zu.events", folder, size);
	EQ(os_open(-1, name, OS_WRITE | OS_APPEND, &fd), ERR_OK);
	EQ(os_write_all(fd, S("\x50\0\0\0half an event")), ERR_OK);
	os_close(fd);
	t = open_log(UINT64_MAX);
	EQ(count_message(t, 199999), 1);
	add(t, 300000, "x@y", "z@y", "after the tail");
	EQ(trace_log_flush(t), ERR_OK);
	trace_log_close(t);
	t = open_log(UINT64_MAX);
	EQ(count_message(t, 300000), 1);
	trace_log_close(t);
	tap_group("a lost index is made again");
	snprintf(name, sizeof(name), "%s/00000001.keys", folder);
	EQ(os_unlink(-1, name), ERR_OK);
	t = open_log(UINT64_MAX);
	EQ(count_message(t, 11), 1);
	trace_log_close(t);
	tap_group("the next file cannot be made for a while");
	t = open_log(UINT64_MAX);
	snprintf(name, sizeof(name), "%s/%08zu.events", folder, size + 1);
	EQ(os_mkdir(-1, name, 0700), ERR_OK);
	for (uint64_t i = 500000; i < 700000; i++)
		add(t, i, "sender@example.org", "recipient@example.test",
		    "a text of the usual length: 250 2.0.0 Ok, queued as 0CW3Z9K2M4XQA");
	EQ(rmdir(name), 0);
	add(t, 800000, "x@y", "z@y", "after the while");
	EQ(trace_log_counts(t).files, size + 1);
	EQ(count_message(t, 800000), 1);
	EQ(count_message(t, 300000), 1);
	EQ(count_message(t, 500000), 1);
	trace_log_close(t);
	t = open_log(UINT64_MAX);
	test_limit(&t, 850000);
	EQ(trace_log_flush(t), ERR_OK);
	trace_log_close(t);
	tap_group("the oldest goes");
	t = open_log(TRACE_FILE_SIZE);
	EQ(count_message(t, 11), 0);
	EQ(trace_log_counts(t).files, 1);
	EQ(count_message(t, 880000), 1);
	trace_log_close(t);
	arena_free(a);
	for (unsigned i = 1; i <= 9; i++) {
		snprintf(name, sizeof(name), "%s/%08u.events", folder, i);
		unlink(name);
		snprintf(name, sizeof(name), "%s/%08u.keys", folder, i);
		unlink(name);
	}
	EQ(rmdir(folder), 0);
	return tap_done();
}
