// SPDX-License-Identifier: Apache-2.0
/* restore.c - for tests/bench/peer.sh: how long a process takes to have a machine run
 *
 *     restore bare STATE FD ARGUMENT...     QEMU with the monitor on descriptor FD and
 *                                           "-incoming defer": milliseconds from exec to "cont"
 *                                           answered, and with RESTORE_ACT, a command that is
 *                                           started before and asks the guest's agent, to its end.
 *                                           STATE is a package's state.bin.
 *     restore lines TEXT... -- ARGUMENT...  a program that logs to its error output: milliseconds
 *                                           from exec to the first line with each TEXT, then from
 *                                           SIGTERM to its exit
 *
 * Its own measure of time is the only one: what a program says of itself leaves out its start.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ours is closed in the child, theirs becomes `number`. */
static pid_t start(char **argv, int ours, int theirs, int number)
{
    pid_t pid = fork();

    if (pid < 0)
        die("fork");
    if (pid > 0) {
        (void)close(theirs);
        return pid;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)close(ours);
    if (theirs != number && (dup2(theirs, number) < 0 || close(theirs) < 0))
        _exit(127);
    execvp(argv[0], argv);
    perror(argv[0]);
    _exit(127);
}

/* Reads to the next line that has the text. */
static void expect(FILE *in, const char *text)
{
    char line[65536];

    while (fgets(line, sizeof(line), in)) {
        if (strstr(line, text))
            return;
        if (strstr(line, "\"error\"")) {
            fprintf(stderr, "restore: %s", line);
            exit(1);
        }
    }
    fprintf(stderr, "restore: ended before \"%s\"\n", text);
    exit(1);
}

static void say(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        die("monitor");
}

static void pass(int fd, const char *text, int what)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (char *)text, .iov_len = strlen(text)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &what, sizeof(int));
    if (sendmsg(fd, &msg, 0) < 0)
        die("monitor");
}

/* The stream within state.bin (runtime/vmm/qemu/state.h), into a file of its own. */
static int stream_of(const char *path)
{
    unsigned char head[56];
    FILE *in = fopen(path, "rb"), *out = tmpfile();
    uint64_t len = 0;

    if (!in || !out || fread(head, sizeof(head), 1, in) != 1)
        die(path);
    uint32_t description = (uint32_t)(head[12] | head[13] << 8 | head[14] << 16);
    for (int i = 7; i >= 0; i--)
        len = len << 8 | head[16 + i];
    (void)fseek(in, (long)(sizeof(head) + description), SEEK_SET);
    for (int c; len > 0 && (c = fgetc(in)) != EOF; len--)
        (void)fputc(c, out);
    (void)fflush(out);
    (void)fclose(in);
    return fileno(out);
}

static int bare(char **argv)
{
    static const char caps[] =
        "{\"execute\":\"qmp_capabilities\"}"
        "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":["
        "{\"capability\":\"x-ignore-shared\",\"state\":true},"
        "{\"capability\":\"events\",\"state\":true}]}}\n";
    int stream = stream_of(argv[0]), pair[2];

    /* QEMU reads a socket or a pipe, as ours does. */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        die("socketpair");
    const char *act = getenv("RESTORE_ACT");
    pid_t asks = act ? fork() : 0;
    if (act && asks == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-c", act, (char *)NULL);
        _exit(127);
    }
    double t0 = now_ms();
    pid_t pid = start(argv + 2, pair[0], pair[1], atoi(argv[1]));
    FILE *in = fdopen(pair[0], "r");
    expect(in, "QMP");
    double greeted = now_ms();
    say(pair[0], caps);
    expect(in, "return");
    expect(in, "return");
    double ready = now_ms();
    (void)lseek(stream, 0, SEEK_SET);
    pass(pair[0], "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"state\"}}", stream);
    say(pair[0], "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:state\"}}\n");
    expect(in, "\"completed\"");
    double loaded = now_ms();
    say(pair[0], "{\"execute\":\"cont\",\"id\":7}\n");
    expect(in, "\"id\": 7");
    double t1 = now_ms();
    if (getenv("RESTORE_DETAIL"))
        fprintf(stderr, "greeting %.1f ready %.1f loaded %.1f\n", greeted - t0, ready - t0,
                loaded - t0);
    int status = 0;
    if (act && (waitpid(asks, &status, 0) != asks || status != 0)) {
        fprintf(stderr, "restore: %s: failed\n", act);
        return 1;
    }
    printf("%.2f %.2f\n", t1 - t0, now_ms() - t0);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    return 0;
}

static int lines(char **argv)
{
    int fds[2], status;
    char **command = argv;

    while (*command && strcmp(*command, "--") != 0)
        command++;
    if (!*command++ || pipe2(fds, O_CLOEXEC) < 0)
        return 1;
    double t0 = now_ms();
    pid_t pid = start(command, fds[0], fds[1], 2);
    FILE *in = fdopen(fds[0], "r");
    for (; strcmp(*argv, "--") != 0; argv++) {
        expect(in, *argv);
        printf("%.2f ", now_ms() - t0);
    }
    (void)fflush(stdout);
    char c;
    if (getenv("RESTORE_WAIT") && read(0, &c, 1) < 0) /* until our input says or ends */
        die("input");
    t0 = now_ms();
    (void)kill(pid, SIGTERM);
    if (waitpid(pid, &status, 0) < 0)
        die("wait");
    printf("%.2f\n", now_ms() - t0);
    if (status != 0)
        fprintf(stderr, "restore: %s: wait status %d\n", command[0], status);
    return status != 0;
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc > 4 && strcmp(argv[1], "bare") == 0)
        return bare(argv + 2);
    if (argc > 4 && strcmp(argv[1], "lines") == 0)
        return lines(argv + 2);
    fprintf(stderr,
            "usage: restore bare STATE FD ARGUMENT... | restore lines TEXT... -- ARGUMENT...\n");
    return 2;
}
