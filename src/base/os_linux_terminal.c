/* What a command at a terminal needs: echo, leaving the terminal, waiting for one descriptor. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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

void os_detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		close(null);
	}
}

enum err os_wait_readable(int fd, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n;

	do
		n = poll(&p, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_from_errno(errno);
	return n == 0 ? ERR_TIMEOUT : ERR_OK;
}
