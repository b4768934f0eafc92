// SPDX-License-Identifier: Apache-2.0
/* test_oci_hazards.c - what images of strangers have done to others, one test each
 *
 * The whole way is tried: a layout on disk, oci-unpack, oci-pack and oci-build. Each image must end
 * in a tree inside the root, the same by both ways, or in exit status 1 and an error that names
 * image, layer, entry and cause. Beside the output lies a folder "victim", which nothing may touch,
 * and no temporary may stay. Rules and orders of whiteouts, links and names in detail:
 * tests/unit/oci/layer.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/output.h"
#include "tests/lib/hazard.h"
#include "tests/lib/layout.h"
#include "tests/lib/unit.h"

#define HAZARD(name, ...)                                                                          \
    UNIT_TEST(name)                                                                                \
    {                                                                                              \
        hazard_try(#name, &(struct hazard){__VA_ARGS__});                                          \
    }                                                                                              \
    END_TEST

#define LAYER(n) "layer " n " (sha256:*): "

/* -- what the image specification says of layers ----------------------------------------------- */

HAZARD(duplicate_paths, .layers = "f a=1; d d @m0700; f d/x=1; f a=2; d d @m0755",
       .want = "a=2 d/ d/x=1")
HAZARD(a_file_replaces_a_folder, .layers = "d a; f a/x=1 -- f a=2", .want = "a=2")
HAZARD(whiteout_of_nothing,
       .layers = "f a=1 -- f .wh.=", .want = "!" LAYER("2 of 2") "entry \".wh.\": *names nothing")
HAZARD(whiteout_of_the_folder_itself, .layers = "f a/b=1 -- f a/.wh..=",
       .want = "!" LAYER("2 of 2") "entry \"a/.wh..\": *names nothing")
HAZARD(whiteout_of_the_folder_above, .layers = "f a/b=1 -- f a/.wh...=",
       .want = "!" LAYER("2 of 2") "entry \"a/.wh...\": *names nothing")
HAZARD(whiteouts_of_what_is_absent,
       .layers = "f a=1 -- f .wh.b=; f x/.wh.y=; f z/.wh..wh..opq=", .want = "a=1")
HAZARD(opaque_before_its_siblings, .layers = "f a/x=1 -- f a/.wh..wh..opq=; f a/y=2",
       .want = "a/ a/y=2")
HAZARD(opaque_behind_its_siblings,
       .layers = "f a/x=1 -- f a/y=2; f a/.wh..wh..opq=", .want = "a/ a/y=2")
HAZARD(whiteout_through_a_symlink,
       .layers = "l a>VICTIM; l b>../../victim -- f a/.wh.passwd=; f b/.wh.passwd=")
HAZARD(opaque_through_a_symlink, .layers = "l a>VICTIM -- f a/.wh..wh..opq=")

/* -- symlinks ---------------------------------------------------------------------------------- */

/* CVE-2021-29136 (umoci) */
HAZARD(root_dot_is_a_symlink, .layers = "l .>VICTIM -- f passwd=2",
       .want = "!" LAYER("1 of 2") "entry \".\": the root would become")
HAZARD(root_slash_is_a_symlink, .layers = "l />VICTIM -- f passwd=2",
       .want = "!" LAYER("1 of 2") "entry \"/\": the root would become")
HAZARD(root_is_a_hard_link, .layers = "l a>VICTIM; h .>a",
       .want = "!" LAYER("1 of 1") "entry \".\": the root would become")
/* CVE-2026-46703 (boxlite), go-archive TestUntarThroughAbsoluteSymlink */
HAZARD(file_through_an_absolute_symlink, .layers = "l a>VICTIM; f a/passwd=2")
HAZARD(file_through_it_in_the_next_layer, .layers = "l a>VICTIM -- f a/passwd=2")
HAZARD(folder_attributes_through_a_symlink, .layers = "l a>VICTIM; d a/ @m0777; d a/sub/")
/* CVE-2014-6407 (docker), go-archive TestUntarSymlinkBreakout */
HAZARD(file_through_a_climbing_symlink, .layers = "l a>../../victim; f a/passwd=2",
       .want = "a>../../victim victim/ victim/passwd=2")
HAZARD(file_through_a_chain, .layers = "l a>b/c; l b>../..; d victim; l c>victim; f a/f=1")
/* go-archive TestUnpackRejectsRelativeEscapeBeforeAbsoluteSymlink */
HAZARD(climbing_before_an_absolute_symlink, .layers = "l x>../../../..; l y>x/VICTIM; f y/passwd=2")
HAZARD(file_over_a_symlink, .layers = "l passwd>VICTIM/passwd; f passwd=2", .want = "passwd=2")
HAZARD(symlinks_in_a_circle, .layers = "l a>b; l b>a; f a/f=1",
       .want = "!" LAYER("1 of 1") "entry \"a/f\": *more than 40 symlinks")

/* -- ".." and hard links ----------------------------------------------------------------------- */

/* CVE-2014-9356 (docker), CVE-2016-7569 (docker2aci) */
HAZARD(dots_in_names, .layers = "f ../../victim/passwd=2; f /../../victim/x=3",
       .want = "victim/ victim/passwd=2 victim/x=3")
HAZARD(absolute_names, .layers = "f VICTIM/passwd=2")
/* CVE-2026-17106 (moby/go-archive), TestUntarAbsoluteHardlink */
HAZARD(hard_link_to_the_host, .layers = "h a>VICTIM/passwd; f a=2",
       .want = "!" LAYER("1 of 1") "entry \"a\": hard link to \"*passwd\": *no such entry")
HAZARD(hard_link_by_climbing, .layers = "h a>../../victim/passwd",
       .want = "!" LAYER("1 of 1") "entry \"a\": hard link to \"*passwd\": *no such entry")
HAZARD(hard_link_through_a_symlink, .layers = "l l>VICTIM; h a>l/passwd; f a=2",
       .want = "!" LAYER("1 of 1") "entry \"a\": hard link to \"l/passwd\": *no such entry")
/* go-archive TestUntarHardlinkToSymlink */
HAZARD(hard_link_to_a_symlink_then_a_file, .layers = "l l>VICTIM/passwd; h a>l; f a=2")

static void link_with_data(struct tar_make *t, size_t layer)
{
    (void)layer;
    t->len = 0;
    tar_make_script(t, "f a=one; h b>a");
    size_t header = t->len - 512;
    memcpy(t->data + header + 124, "00000000003", 12);
    tar_make_checksum(t, header);
    tar_make_bytes(t, "two", 3);
    tar_make_pad(t);
    tar_make_end(t);
}

/* CVE-2016-5418 (libarchive): what stands there is no data, and no header either */
HAZARD(hard_link_with_data, .tar = link_with_data,
       .want = "!" LAYER("1 of 1") "header: its checksum is wrong")
/* umoci: "always replaces inodes" */
HAZARD(a_hard_link_is_not_written_through, .layers = "f a=1; h b>a -- f b=2", .want = "a=1 b=2")

/* -- tar --------------------------------------------------------------------------------------- */

static void smuggle(struct tar_make *t, size_t layer)
{
    (void)layer;
    t->len = 0;
    tar_make_pax(t, "size", "1024", 4);
    tar_make_entry(t, &(struct tar_make_entry){.path = "outer", .size_field = 0});
    tar_make_entry(t, &(struct tar_make_entry){.path = "smuggled", .data = "x"});
    tar_make_end(t);
}

static void check_smuggled(void)
{
    struct hazard_listing l = {0};

    hazard_list(&l, "bundle/rootfs", "");
    ck_assert_msg(strncmp(l.text, "outer=", 6) == 0 && !strstr(l.text, " smuggled="), "%s", l.text);
}

/* CVE-2025-62518 (TARmageddon), RUSTSEC-2025-0111 */
UNIT_TEST(smuggled_by_two_sizes)
{
    hazard_try("smuggled_by_two_sizes", &(struct hazard){.tar = smuggle});
    check_smuggled();
}
END_TEST

static void sparse_1_0(struct tar_make *t, size_t layer)
{
    (void)layer;
    t->len = 0;
    tar_make_pax(t, "GNU.sparse.major", "1", 1);
    tar_make_pax(t, "GNU.sparse.minor", "0", 1);
    tar_make_pax(t, "GNU.sparse.realsize", "50", 2);
    tar_make_entry(t, &(struct tar_make_entry){.path = "s", .data = "99999999999\n"});
    tar_make_end(t);
}

static void old_sparse(struct tar_make *t, size_t layer)
{
    static uint8_t block[512];

    (void)layer;
    t->len = 0;
    tar_make_header(t, &(struct tar_make_entry){.path = "s", .type = 'S', .magic = "ustar  \0"});
    memcpy(t->data + 483, "00000000000", 12);
    t->data[482] = 1;
    tar_make_checksum(t, 0);
    /* One piece of nothing in each of very many blocks. */
    memcpy(block, "00000000000", 12);
    memcpy(block + 12, "00000000001", 12);
    block[504] = 1;
    for (int i = 0; i < 300000; i++) {
        char offset[24];
        (void)snprintf(offset, sizeof(offset), "%011o", 2 * i);
        memcpy(block, offset, 12);
        tar_make_bytes(t, block, sizeof(block));
    }
    tar_make_end(t);
}

/* CVE-2025-58183 and CVE-2026-32288 (Go archive/tar) */
HAZARD(endless_sparse_map, .tar = sparse_1_0,
       .want = "!" LAYER("1 of 1") "entry \"s\": sparse file: more than 262144 pieces")
HAZARD(endless_old_sparse_map, .tar = old_sparse,
       .want = "!" LAYER("1 of 1") "entry \"s\": sparse file: more than 262144 pieces")
/* apple/containerization */
HAZARD(name_too_long, .layers = "f %*256,n=x",
       .want = "!" LAYER("1 of 1") "entry \"nnn*\": *longer than 255")
HAZARD(path_too_long, .layers = "f %*5000,/x=x", .want = "!" LAYER("1 of 1") "*at most 4096")

static void bad_xattr(struct tar_make *t, size_t layer)
{
    (void)layer;
    char name[300] = "SCHILY.xattr.user.";
    t->len = 0;
    memset(name + 18, 'n', 251);
    tar_make_pax(t, name, "v", 1);
    tar_make_entry(t, &(struct tar_make_entry){.path = "a"});
    tar_make_end(t);
}

static void bad_record(struct tar_make *t, size_t layer)
{
    (void)layer;
    t->len = 0;
    tar_make_entry(t, &(struct tar_make_entry){
                          .path = "x", .type = 'x', .data = "99 SCHILY.xattr.user.a=b\n"});
    tar_make_entry(t, &(struct tar_make_entry){.path = "a"});
    tar_make_end(t);
}

HAZARD(attribute_name_too_long, .tar = bad_xattr,
       .want = "!" LAYER("1 of 1") "*attribute's name is empty, longer than 255")
HAZARD(attribute_record_of_wrong_length, .tar = bad_record,
       .want = "!" LAYER("1 of 1") "*record's length")
/* go-archive TestHandleTarTypeBlockCharFifoDeviceRange */
HAZARD(device_number_out_of_range, .layers = "c a:4294967296:0",
       .want = "!" LAYER("1 of 1") "entry \"a\": *out of range")

static void with_global_header(struct tar_make *t, size_t layer)
{
    (void)layer;
    t->len = 0;
    tar_make_entry(
        t, &(struct tar_make_entry){.path = "g", .type = 'g', .data = "24 path=../victim/passw\n"});
    tar_make_script(t, "f a=1");
    tar_make_end(t);
}

/* go-archive TestTypeXGlobalHeaderDoesNotFail */
HAZARD(global_header, .tar = with_global_header, .want = "a=1")

static void gnu_prefix(struct tar_make *t, size_t layer)
{
    (void)layer;
    t->len = 0;
    tar_make_header(t, &(struct tar_make_entry){.path = "a", .magic = "ustar  \0"});
    memcpy(t->data + 345, "00000000000", 11); /* its atime, which is no prefix */
    tar_make_checksum(t, 0);
    tar_make_end(t);
}

/* go-archive TestUntarUstarGnuConflict */
HAZARD(gnu_header_is_no_ustar, .tar = gnu_prefix, .want = "a=")
/* go-archive TestImpliedDirectoryPermissions */
UNIT_TEST(implied_folders_are_open_to_read)
{
    struct stat st;
    mode_t mask = umask(077);

    hazard_try("implied_folders_are_open_to_read",
               &(struct hazard){.layers = "f a/b/c=1", .want = "a/ a/b/ a/b/c=1"});
    umask(mask);
    ck_assert_int_eq(stat("bundle/rootfs/a/b", &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0755);
}
END_TEST
/* go-archive TestOverlayUntarInvalidWhiteoutNames */
HAZARD(
    whiteout_as_a_parent, .layers = "f a=1 -- f .wh.a/b=1",
    .want = "!" LAYER("2 of 2") "entry \".wh.a/b\": it lies in a folder whose name is a whiteout's")

static void truncated_tar(struct tar_make *t, size_t layer)
{
    (void)layer;
    t->len = 600;
}

static void noise(struct tar_make *t, size_t layer)
{
    uint64_t state = 4711;

    (void)layer;
    t->len = 0;
    for (int i = 0; i < 2000; i++) {
        uint64_t word = unit_random(&state);
        tar_make_bytes(t, &word, sizeof(word));
    }
}

/* CVE-2021-20291 (containers/storage): it hung for ever */
HAZARD(no_tar_at_all, .tar = noise, .want = "!" LAYER("1 of 1") "header: its checksum is ")
HAZARD(tar_cut_off, .layers = "f a=%*200,x", .tar = truncated_tar,
       .want = "!" LAYER("1 of 1") "entry \"a\": *ends in the middle")

static void padding(struct tar_make *t, size_t layer)
{
    (void)layer;
    tar_make_zeros(t, 100 << 20);
}

/* CVE-2017-14992 (moby, tar-split): padding behind the archive's end */
HAZARD(bomb_of_padding, .layers = "f a=1", .tar = padding, .gzip = true,
       .want = "!" LAYER("1 of 1") "*--max-ratio")
HAZARD(bomb_over_the_limit, .layers = "f a=1", .tar = padding, .gzip = true,
       .flag = "--max-bytes=10M", .want = "!" LAYER("1 of 1") "*--max-bytes")

/* CVE-2026-95838 (containerd): as many opaque whiteouts as names would be 400 million steps */
static void many_opaque(struct tar_make *t, size_t layer)
{
    char script[32] = "f d/.wh..wh..opq=";

    t->len = 0;
    for (int i = 0; i < 20000; i++) {
        if (layer == 0)
            (void)snprintf(script, sizeof(script), "f d/%d=", i);
        tar_make_script(t, script);
    }
    tar_make_end(t);
}
UNIT_TEST(repeated_opaque_whiteouts)
{
    hazard_enter("repeated_opaque_whiteouts");
    hazard_layout(&(struct hazard){.layers = " --", .tar = many_opaque});
    ck_assert_msg(hazard_build(NULL) == 0, "%s", hazard_err.text);
}
END_TEST

/* -- users ------------------------------------------------------------------------------------- */

#define USER(u) "{\"User\":\"" u "\"}"

/* CVE-2024-9676 (containers/storage) */
HAZARD(passwd_is_a_symlink_to_the_host, .layers = "l etc/passwd>VICTIM/passwd",
       .config = USER("host"), .want = "!no user \"host\" in /etc/passwd of the image")
HAZARD(etc_is_a_symlink_to_the_host, .layers = "l etc>../../victim", .config = USER("host"),
       .want = "!no user \"host\" in /etc/passwd of the image")
HAZARD(passwd_is_a_fifo, .layers = "p etc/passwd", .config = USER("0"),
       .want = "!*not a regular file")

static void large_passwd(struct tar_make *t, size_t layer)
{
    static uint8_t line[1 << 20];

    (void)layer;
    memset(line, '\n', sizeof(line));
    t->len = 0;
    tar_make_header(t, &(struct tar_make_entry){.path = "etc/passwd", .size = 64 << 20});
    for (int i = 0; i < 64; i++)
        tar_make_bytes(t, line, sizeof(line));
    tar_make_end(t);
}
HAZARD(passwd_is_huge, .tar = large_passwd, .config = USER("0"), .want = "!*more than the limit")
/* CVE-2024-40635 (containerd) */
HAZARD(user_id_wraps_to_root, .config = USER("4294967296"), .want = "!*4294967296 is above")
HAZARD(group_id_wraps_to_root, .config = USER("1:4294967296"), .want = "!*4294967296 is above")
HAZARD(user_in_passwd_wraps_to_root,
       .layers = "f etc/passwd=x:x:4294967296:0::/:", .config = USER("x"),
       .want = "!*no number up to")
HAZARD(owner_wraps_to_root, .layers = "f a=1 @u4294967296",
       .want = "!" LAYER("1 of 1") "entry \"a\": *out of range")

UNIT_TEST(largest_user_id_is_itself)
{
    hazard_try("largest_user_id_is_itself",
               &(struct hazard){.config = USER("4294967294:2147483648"), .want = ""});
    ck_assert_int_eq(system("jq -e '.process.user == {uid: 4294967294, gid: 2147483648}' "
                            "bundle/config.json >/dev/null"),
                     0);
}
END_TEST

/* What is mounted and bound at run time lies on the way of an image's own symlinks: they stay as
 * they are, and nothing is made through them (CVE-2026-41579, runc). */
HAZARD(dev_is_a_symlink, .layers = "l dev>../../victim; l etc>../../victim; l proc>VICTIM",
       .want = NULL)

/* -- the layout -------------------------------------------------------------------------------- */

static char *blob_of_manifest(void)
{
    char *text = io_read_file(AT_FDCWD, "l/index.json", 1 << 20, NULL, &hazard_err);

    assert(text);
    const char *at = strstr(text, "sha256:");
    assert(at);
    char *path = layout_text("l/blobs/sha256/%.64s", at + 7);
    free(text);
    return path;
}

static void replace(const char *path, const char *from, const char *to)
{
    char *text = io_read_file(AT_FDCWD, path, 1 << 20, NULL, &hazard_err);

    assert(text);
    const char *at = strstr(text, from);
    assert(at);
    hazard_put_file(path, layout_text("%.*s%s%s", (int)(at - text), text, to, at + strlen(from)));
    free(text);
}

/* Changes the manifest under a right digest. */
static void change_manifest(const char *from, const char *to)
{
    char *path = blob_of_manifest(), *text;

    replace(path, from, to);
    text = io_read_file(AT_FDCWD, path, 1 << 20, NULL, &hazard_err);
    layout_index("l", layout_put("l", OCI_MANIFEST, text, ""));
    free(text);
}

static void both_kinds(void)
{
    change_manifest("\"schemaVersion\":2", "\"schemaVersion\":2,\"manifests\":[]");
}
static void wrong_kind(void)
{
    change_manifest(OCI_MANIFEST, OCI_INDEX);
}
static void bend_digest(void)
{
    replace("l/index.json", "\"digest\":\"sha256:", "\"digest\":\"sha256:../../../victim/passwd#");
}
static void bend_config_digest(void)
{
    change_manifest("\"digest\":\"sha256:", "\"digest\":\"sha256:../../../victim/");
}
static void link_blob(void)
{
    char *path = blob_of_manifest();

    ck_assert_int_eq(rename(path, "stolen"), 0);
    ck_assert_int_eq(symlink("../../../stolen", path), 0);
}
static void blob_is_longer(void)
{
    FILE *f = fopen(blob_of_manifest(), "a");

    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fputs("\n", f), 1);
    ck_assert_int_eq(fclose(f), 0);
}
static void blob_is_damaged(void)
{
    replace(blob_of_manifest(), "schemaVersion", "schemaversion");
}
static void negative_size(void)
{
    replace("l/index.json", "\"size\":", "\"size\":-");
}

/* CVE-2021-41190 */
HAZARD(manifest_and_index_in_one, .layout = both_kinds, .want = "!*could mean two images")
HAZARD(manifest_that_calls_itself_index, .layout = wrong_kind, .want = "!*calls itself")
/* apple/containerization */
HAZARD(digest_is_a_path, .layout = bend_digest, .want = "!*not a sha256 digest")
HAZARD(config_digest_is_a_path, .layout = bend_config_digest, .want = "!*not a sha256 digest")
HAZARD(blob_is_a_symlink, .layout = link_blob, .want = "!*is a symlink")
/* umoci, hardening.bats */
HAZARD(blob_with_a_byte_more, .layout = blob_is_longer, .want = "!*the descriptor says")
HAZARD(blob_of_another_digest, .layout = blob_is_damaged, .want = "!*its content is damaged")
HAZARD(size_is_negative, .layout = negative_size, .want = "!*out of range")

/* apple/containerization: an id that was no id removed files */
UNIT_TEST(reference_is_a_path)
{
    hazard_enter("reference_is_a_path");
    hazard_layout(&(struct hazard){.layers = "f a=1"});
    ck_assert_int_lt(hazard_run("oci-unpack", (const char *const[]){"--image", "l:../victim",
                                                                    "--output", "bundle", NULL}),
                     0);
    ck_assert_msg(strstr(hazard_err.text, "no image named") ||
                      strstr(hazard_err.text, "oci-layout") || strstr(hazard_err.text, "victim"),
                  "%s", hazard_err.text);
    hazard_check_around("oci-unpack", false, false, false);
}
END_TEST

/* -- races ------------------------------------------------------------------------------------- */

/* Puts a symlink to the victim where a folder of the bundle was just made, again and again. */
_Noreturn static void racer(void)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned i = 0;; i++) {
        DIR *d = opendir(".");
        for (const struct dirent *e; (e = readdir(d));) {
            char from[512], to[512];
            if (strncmp(e->d_name, ".bundle.tmp-", 12) != 0)
                continue;
            for (int k = 0; k < 8; k++) {
                (void)snprintf(from, sizeof(from), "%s/rootfs/%d", e->d_name, k);
                (void)snprintf(to, sizeof(to), "%s/rootfs/moved-%u-%d", e->d_name, i, k);
                if (rename(from, to) == 0 && symlink(hazard_victim, from) < 0)
                    continue; /* gone again */
            }
        }
        (void)closedir(d);
    }
}

/* CVE-2025-47290 (containerd): what was checked is not what is used */
UNIT_TEST(folders_swapped_for_symlinks_while_unpacking)
{
    char script[8192] = "";

    hazard_enter("folders_swapped_for_symlinks_while_unpacking");
    for (int i = 0; i < 400; i++)
        (void)snprintf(script + strlen(script), sizeof(script) - strlen(script),
                       "d %d/%d;f %d/f%d=;", i % 8, i, i % 8, i);
    hazard_layout(&(struct hazard){.layers = script});
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        racer();
    for (int i = 0; i < 20; i++) {
        /* It may fail or not; what counts is where it writes, and what it takes away. */
        (void)hazard_unpack(NULL);
        int status;
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
        ck_assert(WIFSTOPPED(status));
        /* Whoever swaps can also keep a folder from being removed. */
        DIR *d = opendir(".");
        for (const struct dirent *e; (e = readdir(d));)
            if (strncmp(e->d_name, ".bundle.tmp-", 12) == 0 || strcmp(e->d_name, "bundle") == 0)
                ck_assert_int_eq(output_remove_tree(AT_FDCWD, e->d_name, &hazard_err), 0);
        (void)closedir(d);
        hazard_check_around("after unpacking", false, false, false);
        ck_assert_int_eq(kill(pid, SIGCONT), 0);
    }
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST
