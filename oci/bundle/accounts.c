// SPDX-License-Identifier: Apache-2.0
/* accounts.c - who "redis:cache" is in an image
 *
 * Theory of operation: passwd(5) and group(5) are read as text of colon-separated lines, from the
 * image's merged tree only: symlinks are followed inside it, and nothing but a regular file of
 * limited size is read (CVE-2024-9676). An id is a uint32 and not the -1 that setuid(2) and
 * chown(2) take for "leave it"; what does not fit is refused instead of wrapped (CVE-2024-40635).
 *
 * Rules, from image-spec's conversion.md and config.md: a number is copied verbatim whether or not
 * the files know it; without a group the user's own group in passwd counts, 0 when there is none;
 * supplementary groups are set for a user given by name without a group, and for one not given
 * at all, where the specification leaves it open and umoci takes root's.
 */
#include "oci/bundle/accounts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "oci/bundle/bundle.h"
#include "runtime/base/io.h"

#define ID_MAX 4294967294u
#define FIELDS_MAX 7 /* of passwd(5) */

/* A piece of a text that is not ended by NUL. */
struct slice {
    const char *p;
    size_t len;
};

static bool slice_is(struct slice s, const char *text)
{
    return strlen(text) == s.len && memcmp(s.p, text, s.len) == 0;
}

static bool is_number(const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] < '0' || p[i] > '9')
            return false;
    return len > 0;
}

static int parse_id(const char *p, size_t len, uint32_t *ret)
{
    uint64_t n = 0;

    if (!is_number(p, len))
        return -1;
    for (size_t i = 0; i < len; i++) {
        n = n * 10 + (uint64_t)(p[i] - '0');
        if (n > ID_MAX)
            return -1;
    }
    *ret = (uint32_t)n;
    return 0;
}

/* Takes the next line off *text and splits it at colons. Returns the number of fields (the last one
 * keeps further colons), 0 at the end of the text. Empty lines and comments are passed over. */
static size_t next_line(const char **text, struct slice fields[FIELDS_MAX])
{
    while (**text) {
        const char *p = *text, *end = strchrnul(p, '\n');
        *text = *end ? end + 1 : end;
        while (p < end && (*p == ' ' || *p == '\t'))
            p++;
        while (end > p && strchr(" \t\r", end[-1]))
            end--;
        if (p == end || *p == '#')
            continue;
        size_t n = 0;
        for (;;) {
            const char *colon = n + 1 < FIELDS_MAX ? memchr(p, ':', (size_t)(end - p)) : NULL;
            fields[n++] = (struct slice){p, (size_t)((colon ? colon : end) - p)};
            if (!colon)
                return n;
            p = colon + 1;
        }
    }
    return 0;
}

/* Finds the line of user `name`, or of `uid` when name is NULL. *ret_name: the name in the line.
 * Returns 1 when found, 0 when not, -1 when its line is unusable. */
static int find_user(const char *passwd, const char *name, struct account *a,
                     struct slice *ret_name, struct error *err)
{
    struct slice f[FIELDS_MAX];
    size_t n;

    while (passwd && (n = next_line(&passwd, f)) > 0) {
        uint32_t uid, gid;
        if (n < 4 || (name && !slice_is(f[0], name)))
            continue;
        bool good = parse_id(f[2].p, f[2].len, &uid) == 0 && parse_id(f[3].p, f[3].len, &gid) == 0;
        if (!good && !name)
            continue;
        if (!good)
            return error_set(err, EBADMSG,
                             "/etc/passwd of the image: user \"%.64s\": its user or group id is no "
                             "number up to %u",
                             name, ID_MAX);
        if (!name && uid != a->uid)
            continue;
        a->home = n > 5 ? strndup(f[5].p, f[5].len) : strdup("");
        if (!a->home)
            return error_oom(err);
        a->uid = uid;
        a->gid = gid;
        *ret_name = f[0];
        return 1;
    }
    return 0;
}

static int find_group(const char *group, const char *name, uint32_t *ret_gid, struct error *err)
{
    struct slice f[FIELDS_MAX];
    size_t n;

    while (group && (n = next_line(&group, f)) > 0) {
        if (n < 3 || !slice_is(f[0], name))
            continue;
        if (parse_id(f[2].p, f[2].len, ret_gid) < 0)
            return error_set(
                err, EBADMSG,
                "/etc/group of the image: group \"%.64s\": its id is no number up to %u", name,
                ID_MAX);
        return 0;
    }
    return error_set(err, ENOENT, "no group \"%.64s\" in /etc/group of the image", name);
}

static bool has_member(struct slice list, struct slice name)
{
    while (list.len > 0) {
        const char *comma = memchr(list.p, ',', list.len);
        size_t n = comma ? (size_t)(comma - list.p) : list.len;
        if (n == name.len && memcmp(list.p, name.p, n) == 0)
            return true;
        n += comma != NULL;
        list.p += n;
        list.len -= n;
    }
    return false;
}

static int add_memberships(const char *group, struct slice name, struct account *a,
                           struct error *err)
{
    struct slice f[FIELDS_MAX];
    size_t n;

    while (group && (n = next_line(&group, f)) > 0) {
        uint32_t gid;
        if (n < 4 || !has_member(f[3], name) || parse_id(f[2].p, f[2].len, &gid) < 0)
            continue;
        if (a->n_gids == ACCOUNTS_GROUPS_MAX)
            return error_set(err, EFBIG, "/etc/group of the image: more than %d groups for a user",
                             ACCOUNTS_GROUPS_MAX);
        if ((a->n_gids & (a->n_gids - 1)) == 0) { /* 0 and powers of two: the array is full */
            uint32_t *more = realloc(a->gids, (a->n_gids ? 2 * a->n_gids : 1) * sizeof(*more));
            if (!more)
                return error_oom(err);
            a->gids = more;
        }
        a->gids[a->n_gids++] = gid;
    }
    return 0;
}

void account_destroy(struct account *account)
{
    free(account->home);
    free(account->gids);
    *account = (struct account){0};
}

static int resolve(const char *passwd, const char *groups, const char *user, const char *group,
                   struct account *a, struct error *err)
{
    const bool numeric = is_number(user, strlen(user));
    const bool named = *user && !numeric;
    struct slice name = {"", 0};

    if (numeric && parse_id(user, strlen(user), &a->uid) < 0)
        return error_set(err, ERANGE, "user id %.32s is above %u", user, ID_MAX);
    int found = find_user(passwd, named ? user : NULL, a, &name, err);
    if (found < 0)
        return -1;
    if (named && !found)
        return error_set(err, ENOENT, "no user \"%.64s\" in /etc/passwd of the image", user);
    if (is_number(group, strlen(group))) {
        if (parse_id(group, strlen(group), &a->gid) < 0)
            return error_set(err, ERANGE, "group id %.32s is above %u", group, ID_MAX);
    } else if (*group) {
        return find_group(groups, group, &a->gid, err);
    } else if (found && !numeric) {
        return add_memberships(groups, name, a, err);
    }
    return 0;
}

int account_resolve_text(const char *passwd, const char *group, const char *user,
                         struct account *ret, struct error *err)
{
    struct account a = {0};
    char *copy = strdup(user);

    if (!copy)
        return error_oom(err);
    char *colon = strchr(copy, ':');
    int rc = 0;
    if (colon)
        *colon++ = '\0';
    if (colon && strchr(colon, ':'))
        rc = error_set(err, EBADMSG, "\"USER\" or \"USER:GROUP\" wanted");
    if (rc == 0)
        rc = resolve(passwd, group, copy, colon ? colon : "", &a, err);
    if (rc == 0)
        *ret = a;
    else
        account_destroy(&a);
    free(copy);
    return rc < 0 ? error_wrap(err, "user \"%.128s\"", user) : 0;
}

/* Copies the inode's extents, all below its size, into buf, which is zeroed. */
static int read_extents(const struct tree_data *data, const struct tree_inode *inode, char *buf,
                        const char *path, struct error *err)
{
    int fd;

    if (inode->n_extents == 0)
        return 0;
    if (data->open(data->opaque, inode, &fd, err) < 0)
        return -1;
    int rc = 0;
    for (size_t i = 0; i < inode->n_extents && rc == 0; i++) {
        const struct tree_extent *e = &inode->extents[i];
        if (e->offset > inode->size || e->length > inode->size - e->offset)
            rc = error_set(err, EINVAL, "%s: data beyond its end", path);
        else
            rc =
                io_pread_exact(fd, buf + e->offset, (size_t)e->length, e->source_offset, path, err);
    }
    data->close(data->opaque, fd);
    return rc;
}

/* *ret_text: the file's text up to a first NUL byte, NULL when there is no such file. Returns 0. */
static int read_file(const struct tree *tree, const char *path, char **ret_text, struct error *err)
{
    struct error cause = ERROR_INIT;
    struct tree_inode *inode;

    if (tree_resolve(tree, path, strlen(path), true, &inode, &cause) < 0) {
        if (cause.code != ENOENT && cause.code != ENOTDIR)
            return error_set(err, cause.code, "%s of the image: %s", path, cause.text);
        *ret_text = NULL;
        return 0;
    }
    if (!S_ISREG(inode->mode))
        return error_set(err, EBADMSG, "%s of the image: not a regular file", path);
    if (inode->size > BUNDLE_ACCOUNTS_MAX)
        return error_set(err, EFBIG, "%s of the image: %llu bytes, more than the limit of %u", path,
                         (unsigned long long)inode->size, BUNDLE_ACCOUNTS_MAX);
    cleanup_free char *text = calloc(1, (size_t)inode->size + 1);
    if (!text)
        return error_oom(err);
    if (read_extents(tree_get_data(tree), inode, text, path, err) < 0)
        return -1;
    *ret_text = steal_ptr(&text);
    return 0;
}

int account_resolve(const struct tree *tree, const char *user, struct account *ret,
                    struct error *err)
{
    cleanup_free char *passwd = NULL;
    cleanup_free char *group = NULL;

    if (read_file(tree, "/etc/passwd", &passwd, err) < 0 ||
        read_file(tree, "/etc/group", &group, err) < 0)
        return -1;
    return account_resolve_text(passwd, group, user, ret, err);
}
