// SPDX-License-Identifier: Apache-2.0
/* test_fuse.c - what we lean on in the kernel's FUSE: a file of ours under a VMM; threads: yes
 *
 * A daemon thread serves one file from an array. The mount lives in a namespace of the test's own,
 * so it goes with the test however that ends.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/lib/unit.h"

#define PAGE 4096
#define PAGES 64
#define INODE 2

/* As a vhost ioctl has it: direction and size are part of the number. */
struct question {
    uint64_t a, b;
};
#define ASK _IOWR(0xaf, 0x77, struct question)
#define TELL _IOW(0xaf, 0x78, int)

struct served {
    struct fuse_session *session;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    char data[PAGES * PAGE];
    unsigned written[PAGES]; /* WRITEs that touched the page */
    unsigned fsyncs;
    int told;
};

static void fill_stat(fuse_ino_t ino, struct stat *st)
{
    *st = (struct stat){.st_ino = ino, .st_nlink = 1, .st_mode = S_IFDIR | 0755};
    if (ino == INODE) {
        st->st_mode = S_IFREG | 0600;
        st->st_size = PAGES * PAGE;
    }
}

static void do_init(void *opaque, struct fuse_conn_info *conn)
{
    (void)opaque;
    conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e = {.ino = INODE, .attr_timeout = 1000, .entry_timeout = 1000};

    (void)parent;
    if (strcmp(name, "file") != 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    fill_stat(INODE, &e.attr);
    fuse_reply_entry(req, &e);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;

    (void)fi;
    fill_stat(ino, &st);
    fuse_reply_attr(req, &st, 1000);
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                       struct fuse_file_info *fi)
{
    (void)attr;
    (void)to_set;
    do_getattr(req, ino, fi);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    struct served *s = fuse_req_userdata(req);

    (void)ino;
    (void)fi;
    pthread_mutex_lock(&s->lock);
    if (off > PAGES * PAGE)
        off = PAGES * PAGE;
    if (size > (size_t)(PAGES * PAGE - off))
        size = (size_t)(PAGES * PAGE - off);
    fuse_reply_buf(req, s->data + off, size);
    pthread_mutex_unlock(&s->lock);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
                     struct fuse_file_info *fi)
{
    struct served *s = fuse_req_userdata(req);

    (void)ino;
    (void)fi;
    if (off < 0 || off > PAGES * PAGE || size > (size_t)(PAGES * PAGE - off)) {
        fuse_reply_err(req, EFBIG);
        return;
    }
    pthread_mutex_lock(&s->lock);
    memcpy(s->data + off, buf, size);
    for (off_t p = off / PAGE; size > 0 && p <= (off + (off_t)size - 1) / PAGE; p++)
        s->written[p]++;
    pthread_mutex_unlock(&s->lock);
    fuse_reply_write(req, size);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct served *s = fuse_req_userdata(req);

    (void)ino;
    (void)datasync;
    (void)fi;
    pthread_mutex_lock(&s->lock);
    s->fsyncs++;
    pthread_mutex_unlock(&s->lock);
    fuse_reply_err(req, 0);
}

static void do_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
                     struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
                     size_t out_size)
{
    struct served *s = fuse_req_userdata(req);

    (void)ino;
    (void)arg;
    (void)fi;
    (void)flags;
    if (cmd == ASK && in_size == sizeof(struct question) && out_size == in_size) {
        struct question q;
        memcpy(&q, in, sizeof(q));
        q.b = q.a + 1;
        fuse_reply_ioctl(req, 5, &q, sizeof(q));
    } else if (cmd == TELL && in_size == sizeof(int)) {
        pthread_mutex_lock(&s->lock);
        memcpy(&s->told, in, sizeof(int));
        pthread_mutex_unlock(&s->lock);
        fuse_reply_ioctl(req, 0, NULL, 0);
    } else {
        fuse_reply_err(req, ENOTTY);
    }
}

static const struct fuse_lowlevel_ops ops = {
    .init = do_init,
    .lookup = do_lookup,
    .getattr = do_getattr,
    .setattr = do_setattr,
    .open = do_open,
    .read = do_read,
    .write = do_write,
    .fsync = do_fsync,
    .ioctl = do_ioctl,
};

static void *daemon_thread(void *opaque)
{
    struct served *s = opaque;

    (void)fuse_session_loop(s->session);
    return NULL;
}

/* Mounts, and opens the file. */
static int serve(struct served *s)
{
    char *argv[] = {(char *)"test", (char *)"-osubtype=drafter-test", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, argv);

    if (geteuid() != 0)
        unit_skip("needs root");
    if (access("/dev/fuse", R_OK | W_OK) < 0)
        unit_skip("needs /dev/fuse");
    /* Below a chroot(2) "/" is no mount: what is mounted there may be seen outside, until finish().
     */
    if (unshare(CLONE_NEWNS) < 0 ||
        (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 && errno != EINVAL))
        unit_skip("needs a mount namespace of its own");
    (void)mkdir("mnt", 0700);
    (void)pthread_mutex_init(&s->lock, NULL);
    s->session = fuse_session_new(&args, &ops, sizeof(ops), s);
    fuse_opt_free_args(&args);
    ck_assert_ptr_nonnull(s->session);
    ck_assert_int_eq(fuse_session_mount(s->session, "mnt"), 0);
    ck_assert_int_eq(pthread_create(&s->thread, NULL, daemon_thread, s), 0);
    int fd = open("mnt/file", O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void finish(struct served *s, int fd)
{
    close(fd);
    fuse_session_exit(s->session);
    ck_assert_int_eq(umount2("mnt", MNT_DETACH), 0); /* ends the daemon's read of /dev/fuse */
    ck_assert_int_eq(pthread_join(s->thread, NULL), 0);
    fuse_session_unmount(s->session);
    fuse_session_destroy(s->session);
}

/* How often a page was written, and what it starts with now. */
static unsigned written(struct served *s, int page, char *ret_first)
{
    pthread_mutex_lock(&s->lock);
    unsigned n = s->written[page];
    *ret_first = s->data[(size_t)page * PAGE];
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* runtime/vsock: FUSE hands _IOC-sized ioctls on a regular file to its daemon, both ways, and
 * returns the daemon's result. */
UNIT_TEST(ioctls_on_a_regular_file)
{
    static struct served s;
    struct question q = {.a = 41};
    int told = 1234;
    int fd = serve(&s);

    ck_assert_int_eq(ioctl(fd, ASK, &q), 5);
    ck_assert_uint_eq(q.b, 42);
    ck_assert_int_eq(ioctl(fd, TELL, &told), 0);
    pthread_mutex_lock(&s.lock);
    ck_assert_int_eq(s.told, 1234);
    pthread_mutex_unlock(&s.lock);
    ck_assert_int_eq(ioctl(fd, _IO(0xaf, 0x79)), -1);
    ck_assert_int_eq(errno, ENOTTY);
    finish(&s, fd);
}
END_TEST

/* runtime/memory: a shared mapping of a FUSE file is memory; what changed in it comes as WRITEs at
 * msync or fsync, those pages and no others. */
UNIT_TEST(shared_mapping_writes_back)
{
    static struct served s;
    char first;
    int fd = serve(&s);

    char *mem = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(mem, MAP_FAILED);
    mem[3 * PAGE] = 'a';
    mem[40 * PAGE] = 'b';
    ck_assert_int_eq(mem[50 * PAGE], 0);
    ck_assert_int_eq(msync(mem, PAGES * PAGE, MS_SYNC), 0);
    for (int p = 0; p < PAGES; p++) {
        unsigned n = written(&s, p, &first);
        ck_assert_int_eq(n > 0, p == 3 || p == 40);
        ck_assert_int_eq(first, p == 3 ? 'a' : p == 40 ? 'b' : 0);
    }
    unsigned before = written(&s, 3, &first);
    /* A second change is noticed again, and a flush without one writes nothing. */
    ck_assert_int_eq(fsync(fd), 0);
    ck_assert_uint_eq(written(&s, 3, &first), before);
    mem[3 * PAGE] = 'c';
    ck_assert_int_eq(fsync(fd), 0);
    ck_assert_uint_eq(written(&s, 3, &first), before + 1);
    ck_assert_int_eq(first, 'c');
    pthread_mutex_lock(&s.lock);
    ck_assert_uint_ge(s.fsyncs, 1);
    pthread_mutex_unlock(&s.lock);
    munmap(mem, PAGES * PAGE);
    finish(&s, fd);
}
END_TEST

/* runtime/memory: the limits on dirty pages of one mount can be lifted. */
UNIT_TEST(dirty_limits_of_a_mount)
{
    static struct served s;
    char path[128];
    struct stat st;
    int fd = serve(&s);

    ck_assert_int_eq(fstat(fd, &st), 0);
    static const char *const settings[][2] = {{"strict_limit", "0"}, {"max_ratio", "100"}};
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/%s", major(st.st_dev),
                       minor(st.st_dev), settings[i][0]);
        int f = open(path, O_WRONLY | O_CLOEXEC);
        if (f < 0) {
            finish(&s, fd);
            unit_skip("the kernel has no strict_limit, or /sys cannot be written");
            return;
        }
        ck_assert_int_gt(write(f, settings[i][1], strlen(settings[i][1])), 0);
        close(f);
    }
    finish(&s, fd);
}
END_TEST
