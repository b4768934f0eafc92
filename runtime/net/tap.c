// SPDX-License-Identifier: Apache-2.0
/* tap.c - persistent tap links (Documentation/networking/tuntap.rst) */
#include "runtime/net/tap.h"

#include <fcntl.h>
#include <net/if.h>
/* After net/if.h: both define struct ifreq's parts. */
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>

#include "runtime/base/cleanup.h"

int tap_make(const char *name, struct error *err)
{
    /* The open file belongs to the namespace it was opened in. */
    cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};

    if (fd < 0)
        return error_sys(err, "make tap %s: /dev/net/tun (is the tun module loaded?)", name);
    memcpy(ifr.ifr_name, name, strnlen(name, sizeof(ifr.ifr_name) - 1));
    if (ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETPERSIST, 1) < 0)
        return error_sys(err, "make tap %s", name);
    return 0;
}
