// SPDX-License-Identifier: Apache-2.0
/* assemble.c - an image becomes the tree of an OCI runtime bundle */
#include "oci/assemble/assemble.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "oci/bundle/bundle.h"
#include "oci/image/image.h"
#include "runtime/base/json.h"

struct assembly {
    struct image *image;
    struct tree *rootfs, *bundle; /* the bundle's tree has inodes of the other */
    struct layer_store *store;
};

/* Exactly two, or four, digits. */
static int digits(const char **p, int n, int *ret)
{
    int v = 0;

    for (int i = 0; i < n; i++) {
        if ((*p)[i] < '0' || (*p)[i] > '9')
            return -1;
        v = v * 10 + (*p)[i] - '0';
    }
    *p += n;
    *ret = v;
    return 0;
}

static int literal(const char **p, const char *any)
{
    if (!**p || !strchr(any, **p))
        return -1;
    return *(*p)++;
}

int assemble_parse_time(const char *p, int64_t *ret_seconds)
{
    struct tm tm = {0};
    int hours = 0, minutes = 0, sign;

    if (digits(&p, 4, &tm.tm_year) < 0 || literal(&p, "-") < 0 || digits(&p, 2, &tm.tm_mon) < 0 ||
        literal(&p, "-") < 0 || digits(&p, 2, &tm.tm_mday) < 0 || literal(&p, "Tt ") < 0 ||
        digits(&p, 2, &tm.tm_hour) < 0 || literal(&p, ":") < 0 || digits(&p, 2, &tm.tm_min) < 0 ||
        literal(&p, ":") < 0 || digits(&p, 2, &tm.tm_sec) < 0)
        return -1;
    if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 60)
        return -1;
    if (*p == '.') {
        size_t n = strspn(++p, "0123456789");
        if (n == 0)
            return -1;
        p += n;
    }
    sign = literal(&p, "Zz+-");
    if (sign < 0)
        return -1;
    if ((sign == '+' || sign == '-') &&
        (digits(&p, 2, &hours) < 0 || literal(&p, ":") < 0 || digits(&p, 2, &minutes) < 0))
        return -1;
    if (*p)
        return -1;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    int64_t offset = (hours * INT64_C(60) + minutes) * 60;
    *ret_seconds = (int64_t)timegm(&tm) + (sign == '-' ? offset : -offset);
    return 0;
}

static int64_t created(const struct image *image)
{
    const char *text = NULL;
    int64_t t;

    /* What is no time is as good as none: nothing else depends on it. */
    if (json_get_string(image_config(image), "created", "image config", &text, NULL) < 0 || !text ||
        assemble_parse_time(text, &t) < 0 || t < 0 || t > INT32_MAX)
        return 0;
    return t;
}

static int make_bundle(struct assembly *a, const char *hostname, struct error *err)
{
    int64_t time = created(a->image);
    cleanup_free char *config = bundle_config(a->image, a->rootfs, hostname, err);
    if (!config)
        return -1;
    struct tree_inode *root = tree_root(a->bundle), *rootfs = tree_root(a->rootfs);
    struct tree_inode *file = tree_inode_new(a->bundle, S_IFREG | 0644, err);
    if (!file || layer_store_put(a->store, a->bundle, file, config, strlen(config), err) < 0)
        return -1;
    root->mode = S_IFDIR | 0700;
    root->mtime_sec = file->mtime_sec = time;
    /* From here on the image's root is a folder like others; its own tree only keeps its memory. */
    rootfs->names = 0;
    if (!tree_link(a->bundle, root, BUNDLE_CONFIG_NAME, strlen(BUNDLE_CONFIG_NAME), file, err) ||
        !tree_link(a->bundle, root, BUNDLE_ROOTFS_NAME, strlen(BUNDLE_ROOTFS_NAME), rootfs, err))
        return -1;
    struct tree_data data = layer_store_data(a->store);
    tree_set_data(a->bundle, &data);
    return 0;
}

static int open_image(struct assembly *a, const struct assemble_options *o, struct error *err)
{
    cleanup_free char *dir = strdup(o->image);
    if (!dir)
        return error_oom(err);
    char *slash = strrchr(dir, '/'), *colon = strrchr(slash ? slash : dir, ':');
    if (colon)
        *colon++ = '\0';
    a->image = image_open(dir, colon, o->architecture, err);
    return a->image ? 0 : -1;
}

static int assemble(struct assembly *a, const struct assemble_options *o, const struct context *ctx,
                    struct error *err)
{
    if (open_image(a, o, err) < 0)
        return -1;
    a->rootfs = tree_new(err);
    a->bundle = a->rootfs ? tree_new(err) : NULL;
    if (!a->bundle)
        return -1;
    a->store = layer_store_new(a->rootfs, o->spool_dirfd, &o->limits, ctx, err);
    if (!a->store)
        return -1;
    if (layer_apply_image(a->store, a->image, err) < 0 || make_bundle(a, o->hostname, err) < 0)
        return error_wrap(err, "image %s", o->image);
    return 0;
}

struct assembly *assemble_image(const struct assemble_options *options, const struct context *ctx,
                                struct error *err)
{
    cleanup_assembly struct assembly *a = calloc(1, sizeof(*a));

    if (!a) {
        error_oom(err);
        return NULL;
    }
    return assemble(a, options, ctx, err) < 0 ? NULL : steal_ptr(&a);
}

void assembly_free(struct assembly *a)
{
    if (!a)
        return;
    layer_store_free(a->store);
    tree_free(a->bundle);
    tree_free(a->rootfs);
    image_close(a->image);
    free(a);
}

struct tree *assembly_tree(const struct assembly *a)
{
    return a->bundle;
}
