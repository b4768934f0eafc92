/* SPDX-License-Identifier: Apache-2.0 */
/* hazard.h - one image of a stranger, through the programs, with a victim beside it
 *
 * A test works in a folder of its own, in which lie the layout "l" and a folder "victim" that
 * nothing may touch. Any failure ends the test.
 */
#ifndef TESTS_LIB_HAZARD_H
#define TESTS_LIB_HAZARD_H

#include <stdbool.h>
#include <sys/stat.h>

#include "runtime/base/error.h"
#include "tests/lib/tar_make.h"

struct hazard {
    const char *layers; /* scripts of tar_make.h, "--" between them; VICTIM is its absolute path */
    const char *config; /* of the image's "config" object, {} when NULL */
    const char *want; /* a listing of the root; "!PATTERN": an error, fnmatch(3); NULL: any tree */
    const char *flag; /* of oci-unpack and oci-build */
    void (*tar)(struct tar_make *t, size_t layer); /* makes or damages a layer's tar */
    void (*layout)(void);                          /* damages the layout when it is done */
    bool gzip;
};

struct hazard_listing {
    char text[65536];
    struct {
        dev_t dev;
        ino_t ino;
        char *path;
    } seen[64];
    size_t n_seen;
};

/* Of the last program or call that failed. */
extern struct error hazard_err;
/* Absolute path of the victim. */
extern char *hazard_victim;

/* Makes the test's folder with the victim in it, and enters it. */
void hazard_enter(const char *test);
/* Writes the layout. */
void hazard_layout(const struct hazard *h);
/* Writes a text file. */
void hazard_put_file(const char *path, const char *text);

/* Adds what lies below dir to a zeroed listing, in the notation of test_merge.c:
 * "a/ a/f=DATA l>TARGET p| second==first". */
void hazard_list(struct hazard_listing *l, const char *dir, const char *prefix);

/* Runs tools/NAME with the arguments behind it. Returns 0, or -1 with its stderr in hazard_err. */
int hazard_run(const char *name, const char *const *arguments);
/* oci-unpack to "bundle", oci-build to "disk"; flag: one more option, or NULL. As hazard_run(). */
int hazard_unpack(const char *flag);
int hazard_build(const char *flag);

/* Checks that the victim is as it was and nothing but what is meant to stand here does. */
void hazard_check_around(const char *context, bool bundle, bool disk, bool packed);

/* All of it: both ways to a file system end as h->want says, and alike. */
void hazard_try(const char *test, const struct hazard *h);

#endif
