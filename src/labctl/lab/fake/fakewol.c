/* Wake-on-LAN for a card that knows none: a host in a container has a veth, whose driver refuses both ioctls.
 * This is preloaded into every process of such a host. It answers ETHTOOL_GWOL and ETHTOOL_SWOL of a card that has
 * a file below LIVE, by that file: what is read and written is struct ethtool_wolinfo itself. As with a real card,
 * only root may ask. All else goes to the kernel.
 *
 * ethtool asks over netlink first, and falls back to the ioctls where a kernel has no such netlink family: that is
 * what it is told here, it alone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIVE "/opt/lab/sleep/live/nic/"

static int has_answered(const struct ifreq *asked, int *answer)
{
	struct ethtool_wolinfo *wol = (void *)asked->ifr_data;
	char path[sizeof(LIVE) + IFNAMSIZ];
	ssize_t done;
	int file;

	if (!wol || (wol->cmd != ETHTOOL_GWOL && wol->cmd != ETHTOOL_SWOL))
		return 0;
	snprintf(path, sizeof path, LIVE "%.*s", IFNAMSIZ, asked->ifr_name);
	file = open(path, (wol->cmd == ETHTOOL_SWOL ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
	if (file < 0 && errno == ENOENT)
		return 0;
	*answer = -1;
	if (file < 0) {
		errno = EPERM;
		return 1;
	}
	done = wol->cmd == ETHTOOL_SWOL ? write(file, wol, sizeof *wol) : read(file, wol, sizeof *wol);
	if (done == sizeof *wol)
		*answer = 0;
	else if (done >= 0)
		errno = EIO;
	close(file);
	return 1;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;
	void *argument;
	int answer;

	va_start(rest, request);
	argument = va_arg(rest, void *);
	va_end(rest);
	if (request == SIOCETHTOOL && argument && has_answered(argument, &answer))
		return answer;
	return syscall(SYS_ioctl, fd, request, argument);
}

int socket(int domain, int type, int protocol)
{
	if (domain == AF_NETLINK && protocol == NETLINK_GENERIC && !strcmp(program_invocation_short_name, "ethtool")) {
		errno = EPROTONOSUPPORT;
		return -1;
	}
	return syscall(SYS_socket, domain, type, protocol);
}
