// SPDX-License-Identifier: Apache-2.0
/* stream.c - ascending blocks to the image, written 1 MiB at a time by a thread of their own */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "oci/ext4/parts.h"
#include "runtime/base/bytes.h"
#include "runtime/base/io.h"

#define STREAM_QUEUE 3 /* full buffers waiting: memory stays at STREAM_QUEUE + 2 buffers */

struct write_job {
    struct stream *stream;
    uint8_t *buffer;
    uint64_t block;
    unsigned blocks;
};

static bool is_power(uint64_t n, uint64_t base)
{
    while (n > 1 && n % base == 0)
        n /= base;
    return n == 1;
}

bool has_backup(uint64_t group)
{
    return group <= 1 || is_power(group, 3) || is_power(group, 5) || is_power(group, 7);
}

static uint8_t *take_buffer(struct stream *s)
{
    lock_scope(&s->lock);
    void *buffer = s->free_list;

    if (!buffer)
        return aligned_alloc(BLOCK_SIZE, STREAM_BLOCKS * BLOCK_SIZE);
    memcpy(&s->free_list, buffer, sizeof(s->free_list));
    return buffer;
}

static void give_buffer(struct stream *s, uint8_t *buffer)
{
    lock_scope(&s->lock);

    memcpy(buffer, &s->free_list, sizeof(s->free_list));
    s->free_list = buffer;
}

/* Not a cryptographic hash: it tells images apart that people made, for the UUID. */
static void hash_blocks(uint64_t lanes[HASH_LANES], const uint8_t *p, size_t size)
{
    uint64_t a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];

    for (const uint8_t *end = p + size; p < end; p += 32) {
        a = (a ^ get_le64(p)) * UINT64_C(0x9E3779B97F4A7C15);
        b = (b ^ get_le64(p + 8)) * UINT64_C(0xD6E8FEB86659FD93);
        c = (c ^ get_le64(p + 16)) * UINT64_C(0xA0761D6478BD642F);
        d = (d ^ get_le64(p + 24)) * UINT64_C(0xE7037ED1A0B428DB);
        a ^= a >> 32;
        b ^= b >> 32;
        c ^= c >> 32;
        d ^= d >> 32;
    }
    lanes[0] = a;
    lanes[1] = b;
    lanes[2] = c;
    lanes[3] = d;
}

static void drop_job(void *opaque)
{
    struct write_job *job = opaque;

    give_buffer(job->stream, job->buffer);
    free(job);
}

static int run_job(void *opaque, struct error *err)
{
    struct write_job *job = opaque;
    struct stream *s = job->stream;
    size_t size = (size_t)job->blocks * BLOCK_SIZE;
    int rc;

    hash_blocks(s->lanes, job->buffer, size);
    s->written += job->blocks;
    rc = io_pwrite(s->fd, job->buffer, size, job->block * BLOCK_SIZE, "image", err);
    /* The disk starts now, not when the commit waits for it. Only a hint: it may fail. */
    (void)sync_file_range(s->fd, (off_t)(job->block * BLOCK_SIZE), (off_t)size,
                          SYNC_FILE_RANGE_WRITE);
    drop_job(job);
    return rc;
}

int stream_init(struct stream *s, int fd, uint64_t head_blocks, struct error *err)
{
    *s = (struct stream){.fd = fd,
                         .head_blocks = head_blocks,
                         .cursor = head_blocks,
                         .buffer_block = head_blocks,
                         .lanes = {1, 2, 3, 4}};
    (void)pthread_mutex_init(&s->lock, NULL);
    s->buffer = take_buffer(s);
    if (!s->buffer)
        return error_oom(err);
    s->writer = workers_new(1, STREAM_QUEUE, err);
    return s->writer ? 0 : -1;
}

void stream_destroy(struct stream *s)
{
    workers_free(s->writer);
    free(s->buffer);
    while (s->free_list) {
        void *buffer = s->free_list;
        memcpy(&s->free_list, buffer, sizeof(s->free_list));
        free(buffer);
    }
    (void)pthread_mutex_destroy(&s->lock);
}

static int flush(struct stream *s, struct error *err)
{
    if (s->filled) {
        struct write_job *job = malloc(sizeof(*job));
        if (!job)
            return error_oom(err);
        *job = (struct write_job){
            .stream = s, .buffer = s->buffer, .block = s->buffer_block, .blocks = s->filled};
        s->buffer = NULL;
        s->filled = 0;
        if (workers_submit(s->writer, run_job, drop_job, job, err) < 0)
            return -1;
        s->buffer = take_buffer(s);
        if (!s->buffer)
            return error_oom(err);
    }
    s->buffer_block = s->cursor;
    return 0;
}

unsigned stream_room(struct stream *s, unsigned want, uint8_t **ret_bytes, uint64_t *ret_block,
                     struct error *err)
{
    uint64_t group = s->cursor / GROUP_BLOCKS;

    if (s->cursor % GROUP_BLOCKS == 0 && has_backup(group)) {
        uint64_t to = s->cursor + s->head_blocks;
        if (stream_seek(s, to, err) < 0)
            return 0;
    }
    if (s->cursor + want > EXT4_SIZE_MAX / BLOCK_SIZE) {
        error_set(err, EFBIG, "the content does not fit an image of 16 TiB");
        return 0;
    }
    if ((s->filled == STREAM_BLOCKS || !s->buffer) && flush(s, err) < 0)
        return 0;
    unsigned room = STREAM_BLOCKS - s->filled;
    uint64_t edge = (s->cursor / GROUP_BLOCKS + 1) * GROUP_BLOCKS;
    if (room > want)
        room = want;
    if (room > edge - s->cursor)
        room = (unsigned)(edge - s->cursor);
    *ret_bytes = s->buffer + (size_t)s->filled * BLOCK_SIZE;
    *ret_block = s->cursor;
    return room;
}

void stream_take(struct stream *s, unsigned n)
{
    s->filled += n;
    s->cursor += n;
}

uint8_t *stream_block(struct stream *s, uint64_t *ret_block, struct error *err)
{
    uint8_t *bytes;

    if (!stream_room(s, 1, &bytes, ret_block, err))
        return NULL;
    memset(bytes, 0, BLOCK_SIZE);
    stream_take(s, 1);
    return bytes;
}

int stream_seek(struct stream *s, uint64_t block, struct error *err)
{
    if (block == s->cursor)
        return 0;
    if (flush(s, err) < 0)
        return -1;
    s->cursor = block;
    s->buffer_block = block;
    return 0;
}

int stream_finish(struct stream *s, struct error *err)
{
    if (flush(s, err) < 0)
        return -1;
    return workers_finish(s->writer, err);
}
