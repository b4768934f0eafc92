// SPDX-License-Identifier: Apache-2.0
/* init.c - the first program in a machine: loads drivers, finds the root, makes room for it
 *
 * It is the /init of the initrd that blueprint/kernel/initrd.c packs, a static program without any
 * file beside it. Order:
 *
 *   1. mount /dev, /proc, /sys; listen for the kernel's device events
 *   2. load /modules/NAME.ko in the order that /modules/order states
 *   3. find what root= names: at once, or when an event says that a device has come
 *   4. mount it, move the mounts over, remove what is here, and become its init
 *
 * The kernel's command line decides: root= (/dev/NAME, LABEL=, UUID=), rootfstype= (default ext4),
 * rootflags=, ro or rw (default rw), init=, rootdelay= (seconds to wait for the root, default 30).
 * Quotes are taken as they are. A failure is said on the console; the end of this program is then a
 * kernel panic, after which panic=1 ends the machine.
 *
 * Sources: Linux Documentation/filesystems/ramfs-rootfs-initramfs.rst (switching the root),
 * Documentation/filesystems/ext4/super.rst (label and UUID), netlink(7) (NETLINK_KOBJECT_UEVENT).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CMDLINE_MAX 4096
#define ROOT_WAIT_SECONDS 30

struct settings {
    char text[CMDLINE_MAX]; /* the command line, cut into words; what follows points into it */
    const char *root, *fstype, *flags, *init;
    bool read_only;
    int wait; /* seconds */
};

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n > 0)
        dprintf(2, "initrd: %s\n", text);
}

static _Noreturn void give_up(void)
{
    /* Let the console drain; then the kernel panics because its init has ended. */
    sync();
    _exit(1);
}

static void mount_or_say(const char *type, const char *where, unsigned long flags)
{
    if (mount(type, where, type, flags, NULL) < 0)
        say("mount %s: %s", where, strerror(errno));
}

static int listen_for_devices(void)
{
    struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        say("listen for device events: %s", strerror(errno));
    return fd;
}

static void load_module(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "/modules/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        say("open %s: %s", path, strerror(errno));
        return;
    }
    if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
        say("load %s: %s", name, strerror(errno));
    close(fd);
    unlink(path);
}

static void load_modules(void)
{
    char line[256];
    FILE *f = fopen("/modules/order", "re");
    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0])
            load_module(line);
    }
    fclose(f);
    unlink("/modules/order");
    rmdir("/modules");
}

static void read_settings(struct settings *s)
{
    *s = (struct settings){.fstype = "ext4", .wait = ROOT_WAIT_SECONDS};
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, s->text, sizeof(s->text) - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        say("read /proc/cmdline: %s", strerror(errno));
        return;
    }
    s->text[n] = '\0';
    char *save = NULL;
    for (char *w = strtok_r(s->text, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
        if (!strncmp(w, "root=", 5))
            s->root = w + 5;
        else if (!strncmp(w, "rootfstype=", 11))
            s->fstype = w + 11;
        else if (!strncmp(w, "rootflags=", 10))
            s->flags = w + 10;
        else if (!strncmp(w, "init=", 5))
            s->init = w + 5;
        else if (!strncmp(w, "rootdelay=", 10))
            s->wait = atoi(w + 10);
        else if (!strcmp(w, "ro"))
            s->read_only = true;
        else if (!strcmp(w, "rw"))
            s->read_only = false;
        else if (!strcmp(w, "--"))
            break;
    }
}

/* Whether the file system on a block device has the label or UUID: ext2, ext3 and ext4. */
static bool superblock_matches(const char *path, const char *label, const char *uuid)
{
    uint8_t sb[256];
    char text[37], *p = text;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = pread(fd, sb, sizeof(sb), 1024);
    close(fd);
    if (n != (ssize_t)sizeof(sb) || sb[0x38] != 0x53 || sb[0x39] != 0xef)
        return false;
    if (label)
        return strlen(label) <= 16 && !strncmp((const char *)sb + 0x78, label, 16);
    for (int i = 0; i < 16; i++)
        p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", sb[0x68 + i]);
    return !strcasecmp(text, uuid);
}

/* Puts the device's path into `path` when it is there. */
static bool find_root(const char *root, char *path, size_t size)
{
    struct stat st;
    const char *label = !strncmp(root, "LABEL=", 6) ? root + 6 : NULL;
    const char *uuid = !strncmp(root, "UUID=", 5) ? root + 5 : NULL;
    bool found = false;

    if (!label && !uuid) {
        snprintf(path, size, "%s", root);
        return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
    }
    DIR *d = opendir("/sys/class/block");
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, size, "/dev/%s", e->d_name);
        found = superblock_matches(path, label, uuid);
    }
    if (d)
        closedir(d);
    return found;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void list_disks(void)
{
    char text[256] = "", *p = text;
    DIR *d = opendir("/sys/class/block");
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && (size_t)(p - text) + strlen(e->d_name) + 2 < sizeof(text))
            p += sprintf(p, " %s", e->d_name);
    if (d)
        closedir(d);
    say("block devices there are:%s", text[0] ? text : " none");
}

/* Looks, then waits for an event and looks again: a device that comes in between is in the queue.
 */
static bool wait_for_root(const struct settings *s, int events, char *path, size_t size)
{
    int64_t end = now_ms() + (int64_t)s->wait * 1000;
    while (!find_root(s->root, path, size)) {
        int64_t left = end - now_ms();
        if (left <= 0)
            return false;
        char drop[8192];
        struct pollfd p = {.fd = events, .events = POLLIN};
        /* Without a socket, or after one has overflowed, a look each half second still finds it. */
        poll(&p, 1, left < 500 ? (int)left : 500);
        while (events >= 0 && recv(events, drop, sizeof(drop), 0) > 0)
            ;
    }
    return true;
}

static void become(const char *program)
{
    char *argv[] = {(char *)(uintptr_t)program, NULL};
    static char home[] = "HOME=/", term[] = "TERM=linux";
    static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char *env[] = {home, term, path, NULL};
    execve(program, argv, env);
}

static void switch_root(const struct settings *s)
{
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    static const char *const inits[] = {"/sbin/init", "/etc/init", "/bin/init", "/bin/sh"};
    char to[32];

    for (size_t i = 0; i < sizeof(moved) / sizeof(moved[0]); i++) {
        snprintf(to, sizeof(to), "/root%s", moved[i]);
        /* A root without the folder keeps working: its init mounts what it wants. */
        if (mount(moved[i], to, NULL, MS_MOVE, NULL) < 0)
            umount2(moved[i], MNT_DETACH);
    }
    unlink("/init"); /* the memory of the initrd becomes free with its files */
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0) {
        say("switch to the root: %s", strerror(errno));
        return;
    }
    if (s->init) {
        become(s->init);
        say("init=%s: %s", s->init, strerror(errno));
        return;
    }
    for (size_t i = 0; i < sizeof(inits) / sizeof(inits[0]); i++)
        become(inits[i]);
    say("the root has none of /sbin/init, /etc/init, /bin/init, /bin/sh that runs: %s",
        strerror(errno));
}

int main(void)
{
    static struct settings s;
    char path[4096];

    mount_or_say("devtmpfs", "/dev", MS_NOSUID);
    mount_or_say("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
    mount_or_say("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC);
    read_settings(&s);
    int events = listen_for_devices();
    load_modules();
    if (!s.root) {
        say("the kernel's command line names no root=");
        give_up();
    }
    if (!wait_for_root(&s, events, path, sizeof(path))) {
        say("root=%s did not come within %d seconds", s.root, s.wait);
        list_disks();
        give_up();
    }
    if (mount(path, "/root", s.fstype, s.read_only ? MS_RDONLY : 0, s.flags) < 0) {
        say("mount %s as %s: %s", path, s.fstype, strerror(errno));
        give_up();
    }
    if (events >= 0)
        close(events);
    switch_root(&s);
    give_up();
}
