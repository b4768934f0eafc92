/* SPDX-License-Identifier: Apache-2.0 */
/* parts.h - what the parts of oci/ext4 share; not for other modules */
#ifndef OCI_EXT4_PARTS_H
#define OCI_EXT4_PARTS_H

#include <ext2fs/ext2_fs.h>
#include <stdbool.h>
#include <stdint.h>

#include "oci/ext4/ext4.h"
#include "runtime/base/digest.h"
#include "runtime/base/workers.h"

#define BLOCK_SIZE 4096u
#define GROUP_BLOCKS 32768u /* what one block of bitmap covers */
#define GROUP_INODES_MAX 32768u
#define INODE_SIZE 256u
#define INODE_EXTRA 32u /* i_extra_isize: up to and with i_projid */
#define INODES_PER_BLOCK (BLOCK_SIZE / INODE_SIZE)
#define DESC_SIZE 64u
#define DESCS_PER_BLOCK (BLOCK_SIZE / DESC_SIZE)
#define EXTENT_LEN_MAX 32768u
#define SECTORS_PER_BLOCK (BLOCK_SIZE / 512u)
#define LINKS_MAX 65000u /* EXT4_LINK_MAX */
#define FIRST_INO 11u    /* s_first_ino; lost+found takes it */
#define FILE_BLOCKS_MAX UINT64_C(0xffffffff)
#define I_BLOCK_SIZE 60u
#define STREAM_BLOCKS 256u /* of one buffer: 1 MiB a write */
#define HASH_LANES 4

/* Ascending blocks to the image: the only way content is written. Blocks are filled in a buffer;
 * full buffers are written by one thread, in order, while the next is filled. */
struct stream {
    int fd;
    struct workers *writer;
    struct error *err;
    uint8_t *buffer;       /* being filled */
    uint64_t buffer_block; /* where it goes */
    unsigned filled;       /* blocks in it */
    uint64_t cursor;       /* next block to hand out = buffer_block + filled */
    uint64_t head_blocks;  /* superblock and descriptors kept free at the start of backup groups */
    pthread_mutex_t lock;  /* guards free_list */
    void *free_list;       /* buffers that can be used again */
    uint64_t lanes[HASH_LANES]; /* hash of all that was written; the writer's until it is idle */
    uint64_t written;           /* blocks; the writer's until it is idle */
};

int stream_init(struct stream *s, int fd, uint64_t head_blocks, struct error *err);
void stream_destroy(struct stream *s);
/* Room for up to `want` (>= 1) blocks at the cursor, contiguous in the image: *ret_bytes points to
 * them (old content, not zeros), *ret_block is the first one's number. Returns how many, at least
 * 1; 0 on failure. Nothing is taken until stream_take(). */
unsigned stream_room(struct stream *s, unsigned want, uint8_t **ret_bytes, uint64_t *ret_block,
                     struct error *err);
/* Takes the first n blocks of the room. */
void stream_take(struct stream *s, unsigned n);
/* One block, zeroed and taken. NULL on failure. */
uint8_t *stream_block(struct stream *s, uint64_t *ret_block, struct error *err);
/* Continues at another block. */
int stream_seek(struct stream *s, uint64_t block, struct error *err);
/* Writes all that was taken and waits for it. */
int stream_finish(struct stream *s, struct error *err);

/* A group that holds copies of superblock and descriptors (sparse_super). */
bool has_backup(uint64_t group);

/* Where a file's blocks lie, collected while they are handed out. */
struct extent_run {
    uint32_t logical, len; /* blocks */
    uint64_t physical;
};
struct extent_list {
    struct extent_run *runs;
    size_t n, room;
    uint64_t blocks; /* of data and, after extent_list_store(), of the tree */
};
int extent_list_add(struct extent_list *x, uint64_t logical, uint64_t physical, unsigned len,
                    struct error *err);
/* Puts the list's tree into i_block, taking blocks of the stream for what does not fit. */
int extent_list_store(struct extent_list *x, struct stream *s, uint32_t inode_seed,
                      uint8_t ret_i_block[I_BLOCK_SIZE], struct error *err);

/* What is known of an inode once its blocks are written. */
struct record {
    uint8_t i_block[I_BLOCK_SIZE];
    bool extents;      /* i_block is an extent tree */
    bool indexed;      /* a folder with an index */
    uint32_t ea_first; /* inode number of its first value in an inode of its own; 0 = none */
    uint64_t size;     /* folders: bytes */
    uint64_t blocks;
    uint64_t xattr_block; /* 0 = none */
};

/* An xattr's value in an inode of its own. */
struct ea_value {
    const uint8_t *value;
    uint32_t size, hash;
    struct record record;
};

struct writer {
    struct tree *tree;
    struct ext4_options options;
    const struct context *ctx;
    struct stream stream;
    struct tree_inode **nodes;     /* by inode number; NULL: reserved */
    struct record *records;        /* by inode number */
    uint32_t n_nodes;              /* highest inode number of the tree + 1 */
    struct tree_inode *lost_found; /* the tree's own; NULL: we add one */
    struct ea_value *eas;          /* inode number n_nodes + i */
    uint32_t n_eas, eas_room;
    uint64_t bound;       /* blocks the file system has at most */
    uint64_t head_blocks; /* superblock and descriptors of the largest possible size */
    uint32_t csum_seed;
    uint32_t hash_seed[4];
    uint8_t digest[SHA256_SIZE];    /* of all metadata of the tree, and the options */
    uint64_t data_bytes, data_done; /* for progress */
};

/* plan.c: numbers inodes, checks limits, bounds the size, makes the digest. */
int plan_tree(struct writer *w, struct error *err);
/* The path of an inode for messages (a search: for errors only). */
const char *plan_path(const struct writer *w, const struct tree_inode *inode, char *buf,
                      size_t size);
uint32_t inode_number(const struct tree_inode *inode);
uint32_t inode_seed(const struct writer *w, uint32_t ino);

/* dir.c: writes a folder's blocks. */
int dir_write(struct writer *w, const struct tree_inode *dir, uint32_t ino, struct record *record,
              struct error *err);
int dir_write_lost_found(struct writer *w, struct record *record, struct error *err);
/* More than dir_write() will take. */
uint64_t dir_blocks_bound(const struct tree_inode *dir);

/* data.c: writes a regular file's data, holes left out. */
int data_write(struct writer *w, const struct tree_inode *inode, uint32_t ino,
               struct record *record, struct error *err);
/* Writes `size` bytes of memory as a file's blocks, all of them. */
int data_write_bytes(struct writer *w, const void *bytes, size_t size, uint32_t ino,
                     struct record *record, struct error *err);

/* xattr.c: where each xattr of an inode goes. */
#define XATTRS_MAX 260 /* more do not fit a block */
struct xattr_slot {
    uint8_t index; /* of the namespace */
    uint8_t name_len;
    const char *name; /* without its namespace */
    const uint8_t *value;
    uint32_t size;
    bool in_inode;  /* the entry stands in the inode, else in the xattr block */
    bool outside;   /* the value has an inode of its own */
    uint8_t *owned; /* a converted value, freed with the plan */
};
struct xattr_plan {
    struct xattr_slot slots[XATTRS_MAX]; /* in order of index, length, name */
    unsigned n, n_outside;
    bool block; /* an xattr block is needed */
};
int xattr_plan_make(const struct tree_inode *inode, struct xattr_plan *plan, struct error *err);
void xattr_plan_release(struct xattr_plan *plan);
/* Values with inodes of their own, then the xattr block. */
int xattr_write(struct writer *w, const struct tree_inode *inode, struct record *record,
                struct error *err);
/* The part within the inode: `room` bytes behind the inode's fixed part. */
int xattr_store_in_inode(const struct writer *w, const struct tree_inode *inode,
                         const struct record *record, uint8_t *area, size_t room,
                         struct error *err);

/* inode.c: the bytes of inode `ino`, all zeros when it is not in use. */
int inode_encode(const struct writer *w, uint32_t ino, const struct record *journal,
                 uint8_t ret_bytes[INODE_SIZE], struct error *err);

/* finish.c: all that stands behind the data or depends on the size. */
int finish(struct writer *w, struct ext4_result *result, struct error *err);

#endif
