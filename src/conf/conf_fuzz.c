/* Any bytes as posthorn.conf: never a crash; what parses is typed within its limits, and what does
 * not is said. */
#include "conf/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *a = arena_new(CONF_ARENA_SIZE);
	struct buf problems;
	struct conf *c = NULL;
	enum err err;

	buf_init(&problems, CONF_PROBLEMS_MAX);
	err = conf_parse(str_of(data, size), S("/f/posthorn.conf"), a, &problems, &c);
	if (err == ERR_CONFIG && buf_len(&problems) == 0)
		panic("an error that says nothing");
	if (!err) {
		uint64_t limit = conf_size(c, CONF_message_size_limit);
		size_t n;

		if (buf_len(&problems) > 0 || limit < 1024 || limit > 2147483647)
			panic("a value outside its limits");
		(void)conf_listens(c, &n);
		if (n > CONF_LISTEN_MAX)
			panic("too many listeners");
		(void)conf_check(c, &problems);
	}
	buf_free(&problems);
	arena_free(a);
	return 0;
}
