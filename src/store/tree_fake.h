/* For tests: removes what they made. */
#ifndef STORE_TREE_FAKE_H
#define STORE_TREE_FAKE_H

#include "base/os.h"

#include <stdio.h>

static inline void remove_tree(const char *path)
{
	struct arena *a = arena_new(16 * 1024 * 1024);
	size_t count = 0;
	str *names;
	int fd;

	if (os_open(-1, path, OS_READ | OS_DIRECTORY, &fd) == ERR_OK) {
		if (os_list(fd, a, &names, &count))
			count = 0;
		os_close(fd);
	}
	for (size_t i = 0; i < count; i++) {
		str child = arena_printf(a, "%s/%s", path, names[i].p);

		remove_tree(child.p);
	}
	arena_free(a);
	if (remove(path))
		printf("# left: %s\n", path);
}

#endif
