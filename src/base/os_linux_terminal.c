/* Terminals: the only input that a person types. */
#include "base/os.h"

#include <termios.h>
#include <unistd.h>

bool os_is_terminal(int fd)
{
	return isatty(fd) == 1;
}

void os_terminal_echo(int fd, bool on)
{
	struct termios t;
	const tcflag_t flags = ECHO | ISIG;

	if (tcgetattr(fd, &t))
		return;
	t.c_lflag = on ? t.c_lflag | flags : t.c_lflag & ~flags;
	tcsetattr(fd, TCSAFLUSH, &t);
}
