/* Times on the command line. */
#include "roles/when.h"

#include "base/tap.h"

static const int64_t now = 1795000000000000;

static uint64_t parsed(const char *text)
{
	uint64_t us = 0;

	return when_parse(str_from_c(text), now, &us) ? UINT64_MAX : us / 1000000;
}

int main(void)
{
	tap_group("ages");
	EQ(parsed("90s"), 1795000000 - 90);
	EQ(parsed("5m"), 1795000000 - 300);
	EQ(parsed("3h"), 1795000000 - 3 * 3600);
	EQ(parsed("7d"), 1795000000 - 7 * 86400);
	EQ(parsed("2w"), 1795000000 - 14 * 86400);
	EQ(parsed("999999w"), 0);
	tap_group("dates");
	EQ(parsed("1970-01-01"), 0);
	EQ(parsed("2000-02-29"), 951782400);
	EQ(parsed("2000-03-01"), 951868800);
	EQ(parsed("2100-03-01"), 4107542400);
	EQ(parsed("2026-11-22"), 1795305600);
	EQ(parsed("2026-11-22T06:15"), 1795305600 + 6 * 3600 + 15 * 60);
	EQ(parsed("2026-11-22T06:15:08Z"), 1795305600 + 6 * 3600 + 15 * 60 + 8);
	tap_group("neither");
	static const char *const wrong[] = { "",
					     "d",
					     "x3d",
					     "-3d",
					     "3",
					     "3y",
					     "2026",
					     "2026-11",
					     "2026-13-01",
					     "2026-00-01",
					     "2026-11-32",
					     "2026-11-22T",
					     "2026-11-22T24:00",
					     "2026-11-22T10:00:00:00",
					     "2026-11-22T1:00",
					     "1969-12-31" };
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		if (!OK(parsed(wrong[i]) == UINT64_MAX))
			printf("# %s\n", wrong[i]);
	return tap_done();
}
