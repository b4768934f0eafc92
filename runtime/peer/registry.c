// SPDX-License-Identifier: Apache-2.0
/* registry.c - serves a package to any number of peers at once; see registry.h */
#include "runtime/peer/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "runtime/base/io.h"
#include "runtime/base/json.h"

struct item {
    char *name, *path; /* owned */
    uint32_t block_size;
    bool has_digest; /* read, and as its config says */
    uint8_t sha256[SHA256_SIZE];
};

struct pull;

struct registry {
    const struct registry_options *o;
    const struct context *ctx;
    struct report *report;
    struct item items[PACKAGE_DEVICES_MAX];
    size_t n;
    char *machine; /* the package's config */
    uint8_t *state;
    size_t state_len;
    struct listener *listener;

    pthread_mutex_t lock;  /* guards what follows and every pull's link; taken before no other */
    pthread_cond_t change; /* a pull ended or got a link, or we are stopping */
    struct pull *pulls;
    unsigned clients; /* threads */
    uint64_t served;
    bool stopping;
};

/* One client's thread; a pull once it has greeted with no session. */
struct pull {
    struct registry *r;
    struct pull *next;
    struct stream *stream; /* of the thread, until the engine has it */
    char peer[320];
    bool listed;
    uint8_t session[WIRE_SESSION_SIZE];
    struct context ctx;
    struct cancel cancel;
    bool past_return; /* so far that it must not be cancelled: the engine looks for a cancellation
                         once more before it commits */
    struct report_move move;
    struct stream *again; /* a new link for its session */
    struct migrate_device devices[PACKAGE_DEVICES_MAX];
    size_t n;
};

/* ---- The package -------------------------------------------------------------------------- */

static bool travels(const char *name)
{
    enum blueprint_role role = blueprint_role_of(name);

    return role == BLUEPRINT_MEMORY || role == BLUEPRINT_ROOT || role == BLUEPRINT_DISK;
}

static int read_state(struct registry *r, const char *path, struct error *err)
{
    r->state = (uint8_t *)io_read_file(AT_FDCWD, path, WIRE_STATE_MAX, &r->state_len, err);
    if (!r->state)
        return error_wrap(err, "device state");
    while (r->state_len > 0 && r->state[r->state_len - 1] == 0)
        r->state_len--;
    if (r->state_len == 0)
        return error_set(err, EBADMSG, "device state: %s: is empty: this is no suspended machine",
                         path);
    return 0;
}

static int add(struct registry *r, const char *name, char *path, uint32_t block_size,
               struct error *err)
{
    struct item *it = &r->items[r->n];

    if (path && r->n < ARRAY_SIZE(r->items))
        it->name = strdup(name);
    if (!it->name) {
        free(path);
        return error_oom(err);
    }
    it->path = path;
    it->block_size = block_size > WIRE_BLOCK_MAX ? WIRE_BLOCK_MAX : block_size;
    r->n++;
    return 0;
}

/* What is damaged is not served. */
static int check_digest(struct registry *r, struct item *it, const struct blueprint_device *dev,
                        struct error *err)
{
    if (!dev || !dev->has_digest || r->o->no_verify)
        return 0;
    cleanup_close int fd = open(it->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_sys(err, "device %s: %s", it->name, it->path);
    if (package_verify_device(dev, fd, err) < 0)
        return -1;
    it->has_digest = true;
    memcpy(it->sha256, dev->sha256, SHA256_SIZE);
    return 0;
}

static int open_package(struct registry *r, struct error *err)
{
    cleanup_package struct package *pkg = package_open(r->o->package, err);

    if (!pkg)
        return -1;
    for (size_t i = 0; i < pkg->n_devices; i++) {
        const struct blueprint_device *d = &pkg->devices[i];
        cleanup_free char *path = NULL;
        if (asprintf(&path, "%s/%s", r->o->package, d->file) < 0) {
            path = NULL;
            return error_oom(err);
        }
        if (strcmp(d->name, "state") == 0 && read_state(r, path, err) < 0)
            return -1;
        if (!travels(d->name))
            continue;
        if (add(r, d->name, steal_ptr(&path), BLOCK_SIZE_DEFAULT, err) < 0)
            return -1;
        context_progress(r->ctx, "verify", i, pkg->n_devices, "devices");
        if (context_check(r->ctx, err) < 0 || check_digest(r, &r->items[r->n - 1], d, err) < 0)
            return -1;
    }
    if (pkg->foreign && package_adopt(pkg, err) < 0)
        return error_wrap(err, "package %s", r->o->package);
    r->machine = package_format(pkg, err);
    return r->machine ? 0 : -1;
}

/* The config of a list of devices; upstream's says nothing of them. */
static struct package *read_config(struct registry *r, const char *path, struct error *err)
{
    size_t len;
    cleanup_free char *text = io_read_file(AT_FDCWD, path, 2 * PACKAGE_CONFIG_MAX, &len, err);
    cleanup_package struct package *pkg = text ? package_parse(text, len, path, err) : NULL;

    for (size_t i = 0; pkg && pkg->foreign && i < r->o->devices->n; i++) {
        const struct named *d = &r->o->devices->items[i];
        struct blueprint_device dev = {.has_digest = false};
        char file[BLUEPRINT_FILE_MAX + 1];
        struct stat st;
        if (strcmp(d->name, "config") == 0)
            continue;
        if (stat(d->path, &st) < 0) {
            (void)error_sys(err, "device %s: %s", d->name, d->path);
            return NULL;
        }
        dev.size = (uint64_t)st.st_size;
        (void)snprintf(dev.name, sizeof(dev.name), "%s", d->name);
        (void)snprintf(dev.file, sizeof(dev.file), "%s", blueprint_file_name(d->name, file));
        if (package_add_device(pkg, &dev, err) < 0)
            return NULL;
    }
    if (pkg && pkg->foreign && package_adopt(pkg, err) < 0)
        return error_wrap(err, "%s", path), NULL;
    return steal_ptr(&pkg);
}

static int open_devices(struct registry *r, struct error *err)
{
    for (size_t i = 0; i < r->o->devices->n; i++) {
        const struct named *d = &r->o->devices->items[i];
        if (strcmp(d->name, "state") == 0 && read_state(r, d->path, err) < 0)
            return -1;
        if (strcmp(d->name, "config") == 0) {
            cleanup_package struct package *pkg = read_config(r, d->path, err);
            r->machine = pkg ? package_format(pkg, err) : NULL;
            if (!r->machine)
                return -1;
        }
        if (travels(d->name) && add(r, d->name, strdup(d->path), d->block_size, err) < 0)
            return -1;
    }
    return r->machine ? 0 : error_set(err, EINVAL, "devices: \"config\" is missing");
}

static int open_all(struct registry *r, struct error *err)
{
    if ((r->o->package ? open_package(r, err) : open_devices(r, err)) < 0)
        return -1;
    if (!r->state)
        return error_set(err, EINVAL, "devices: \"state\" is missing");
    if (strlen(r->machine) > WIRE_MACHINE_MAX)
        return error_set(err, E2BIG, "config: more than %u bytes", WIRE_MACHINE_MAX);
    return r->n ? 0 : error_set(err, EINVAL, "devices: \"memory\" is missing");
}

/* ---- One pull ----------------------------------------------------------------------------- */

static struct block *open_stack(const struct item *it, const struct context *ctx, struct error *err)
{
    cleanup_json struct json_object *layers = json_object_new_array();
    struct json_object *file = json_object_new_object(), *dirty = json_object_new_object();
    char text[7 + SHA256_HEX_SIZE] = "sha256:";

    if (!layers || !file || !dirty || json_object_array_add(layers, file) < 0 ||
        json_object_array_add(layers, dirty) < 0) {
        (void)error_oom(err);
        return NULL;
    }
    json_object_object_add(file, "type", json_object_new_string("file"));
    json_object_object_add(file, "path", json_object_new_string(it->path));
    json_object_object_add(file, "readonly", json_object_new_boolean(1));
    json_object_object_add(file, "round", json_object_new_uint64(BLOCK_PAGE));
    if (it->has_digest) {
        digest_hex(it->sha256, text + 7);
        json_object_object_add(file, "digest", json_object_new_string(text));
    }
    json_object_object_add(dirty, "type", json_object_new_string("dirty"));
    json_object_object_add(dirty, "blockSize", json_object_new_uint64(it->block_size));
    return block_open_json(layers, it->name, ctx, err);
}

static int open_stacks(struct pull *p, struct error *err)
{
    struct registry *r = p->r;

    for (size_t i = 0; i < r->n; i++) {
        const struct item *it = &r->items[i];
        struct block *b = open_stack(it, &p->ctx, err);
        if (!b)
            return -1;
        p->devices[p->n++] = (struct migrate_device){
            .name = it->name,
            .block = b,
            .block_size = it->block_size,
            .memory = blueprint_role_of(it->name) == BLUEPRINT_MEMORY,
            .share_base = it->has_digest,
        };
    }
    return 0;
}

/* The machine stands still already, and nothing can befall it. */
static int stand(void *opaque, struct error *err)
{
    (void)opaque;
    (void)err;
    return 0;
}

static int save(void *opaque, uint8_t **ret_state, size_t *ret_len, struct error *err)
{
    const struct registry *r = ((struct pull *)opaque)->r;
    uint8_t *copy = malloc(r->state_len);

    if (!copy)
        return error_oom(err);
    memcpy(copy, r->state, r->state_len);
    *ret_state = copy;
    *ret_len = r->state_len;
    return 0;
}

static struct stream *reconnect(void *opaque, uint64_t timeout_ns, struct error *err)
{
    struct pull *p = opaque;
    struct registry *r = p->r;
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + timeout_ns;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    lock_scope(&r->lock);
    while (!p->again && !r->stopping)
        if (pthread_cond_timedwait(&r->change, &r->lock, &until) == ETIMEDOUT)
            break;
    if (!p->again)
        (void)error_set(err, ETIMEDOUT, "%s: did not come back", p->peer);
    return steal_ptr(&p->again);
}

static void watch_status(void *opaque, const struct migrate_status *s)
{
    struct pull *p = opaque;
    {
        lock_scope(&p->r->lock);
        p->past_return = s->stage >= MIGRATE_SUSPEND;
    }
    report_status(p->r->report, &p->move, s);
}

static void serve(struct pull *p)
{
    struct registry *r = p->r;
    struct error err = ERROR_INIT;
    struct migrate_result result = {.outcome = MIGRATE_ROLLED_BACK};
    struct migrate_watch watch = {.status = watch_status, .opaque = p};
    struct migrate_machine machine = {.suspend = stand, .save = save, .resume = stand, .opaque = p};
    struct migrate_send_options options = {
        .machine = r->machine,
        .session = p->session,
        .postcopy = r->o->postcopy_off ? MIGRATE_POSTCOPY_OFF : MIGRATE_POSTCOPY_EARLY,
        .concurrency = r->o->concurrency,
        .zstd_level = r->o->zstd_level,
        .bandwidth = r->o->bandwidth,
        .answer_ns = r->o->answer_ns,
        .reconnect = reconnect,
        .opaque = p,
        .watch = &watch,
    };

    log_info(context_log(r->ctx), "Migrating to", log_str("addr", p->peer));
    report_begin(r->report, &p->move, "source", p->peer);
    int rc = open_stacks(p, &err);
    if (rc == 0)
        rc = migrate_send(steal_ptr(&p->stream), p->devices, p->n, &machine, &options, &p->ctx,
                          &result, &err);
    report_end(r->report, &p->move, &result, rc < 0 ? &err : NULL);
    for (size_t i = 0; i < p->n; i++)
        (void)block_close(p->devices[i].block, NULL);
    if (rc < 0) {
        log_warn(context_log(r->ctx), "A pull failed, ignoring", log_str("addr", p->peer),
                 log_str("error", err.text));
        return;
    }
    {
        lock_scope(&r->lock);
        r->served++;
    }
    log_info(context_log(r->ctx),
             result.outcome == MIGRATE_COPIED ? "A copy was taken"
                                              : "Completed all device migrations",
             log_str("addr", p->peer), log_uint("ms", result.total_ns / 1000000),
             log_uint("bytes_sent", result.bytes_sent), log_uint("pages_base", result.pages_base),
             log_uint("wants", result.wants));
}

/* ---- Clients ------------------------------------------------------------------------------ */

/* Hands the stream to the pull whose session it names. Returns false when there is none. */
static bool hand_over(struct pull *client, const uint8_t session[WIRE_SESSION_SIZE])
{
    struct registry *r = client->r;
    lock_scope(&r->lock);

    for (struct pull *p = r->pulls; p; p = p->next) {
        if (!p->listed || memcmp(p->session, session, WIRE_SESSION_SIZE) != 0)
            continue;
        stream_close(p->again); /* one that it has not seen: the newest counts */
        p->again = steal_ptr(&client->stream);
        (void)pthread_cond_broadcast(&r->change);
        return true;
    }
    return false;
}

/* What a client wants is in its greeting. */
static int greet(struct pull *p, struct error *err)
{
    uint8_t session[WIRE_SESSION_SIZE];

    if (migrate_peek(p->stream, &p->ctx, session, err) < 0)
        return -1;
    if (!migrate_is_new(session)) {
        if (hand_over(p, session))
            return 0;
        migrate_turn_away(steal_ptr(&p->stream), NULL, NULL, &p->ctx);
        return error_set(err, ESTALE, "%s: wants to take up a pull that is not known here",
                         p->peer);
    }
    if (getrandom(p->session, sizeof(p->session), 0) != sizeof(p->session))
        return error_sys(err, "random bytes");
    {
        lock_scope(&p->r->lock);
        p->listed = true;
    }
    serve(p);
    return 0;
}

static void *client(void *opaque)
{
    struct pull *p = opaque;
    struct registry *r = p->r;
    struct error err = ERROR_INIT;

    if (greet(p, &err) < 0)
        log_warn(context_log(r->ctx), "Client turned away", log_str("addr", p->peer),
                 log_str("error", err.text));
    {
        lock_scope(&r->lock);
        struct pull **at = &r->pulls;
        while (*at != p)
            at = &(*at)->next;
        *at = p->next;
    }
    stream_close(p->stream);
    stream_close(p->again);
    cancel_destroy(&p->cancel);
    free(p);
    lock_scope(&r->lock); /* the last thing: after it the registry may be gone */
    r->clients--;
    (void)pthread_cond_broadcast(&r->change);
    return NULL;
}

static int admit(struct registry *r, struct stream *stream, struct error *err)
{
    cleanup_stream struct stream *s = stream;
    pthread_attr_t attr;
    pthread_t thread;
    bool full;
    {
        lock_scope(&r->lock);
        full = r->clients >= r->o->pulls;
    }
    if (full)
        return error_set(err, EBUSY, "%u are served already (--pulls)", r->o->pulls);
    struct pull *p = calloc(1, sizeof(*p));
    if (!p)
        return error_oom(err);
    p->r = r;
    (void)snprintf(p->peer, sizeof(p->peer), "%s", stream_peer(s));
    p->ctx = (struct context){.log = context_log(r->ctx), .cancel = &p->cancel};
    if (cancel_init(&p->cancel, err) < 0) {
        free(p);
        return -1;
    }
    p->stream = steal_ptr(&s);
    lock_scope(&r->lock);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int rc = pthread_create(&thread, &attr, client, p);
    (void)pthread_attr_destroy(&attr);
    if (rc != 0) {
        stream_close(p->stream);
        cancel_destroy(&p->cancel);
        free(p);
        return error_num(err, rc, "thread");
    }
    p->next = r->pulls;
    r->pulls = p;
    r->clients++;
    return 0;
}

static int accept_all(struct registry *r, struct error *err)
{
    while (context_check(r->ctx, NULL) == 0) {
        struct error why = ERROR_INIT;
        struct stream *s = listener_accept(r->listener, 0, r->ctx, &why);
        if (!s && context_check(r->ctx, NULL) < 0)
            return 0;
        if (!s) {
            if (err)
                *err = why;
            return error_wrap(err, "--laddr");
        }
        char peer[320];
        (void)snprintf(peer, sizeof(peer), "%s", stream_peer(s));
        if (admit(r, s, &why) < 0)
            log_warn(context_log(r->ctx), "Client turned away", log_str("addr", peer),
                     log_str("error", why.text));
    }
    return 0;
}

/* Calls off the pulls that can be, and waits for all. */
static void end_all(struct registry *r)
{
    lock_scope(&r->lock);

    r->stopping = true;
    (void)pthread_cond_broadcast(&r->change);
    for (struct pull *p = r->pulls; p; p = p->next)
        if (!p->past_return)
            cancel_request(&p->cancel);
    if (r->clients)
        log_info(context_log(r->ctx), "Serving pulls whose machine runs to their end",
                 log_uint("clients", r->clients));
    while (r->clients)
        (void)pthread_cond_wait(&r->change, &r->lock);
}

int registry_run(const struct registry_options *options, const struct context *ctx,
                 struct error *err)
{
    cleanup_free struct registry *r = calloc(1, sizeof(*r));
    struct transport_options transport = options->transport;
    pthread_condattr_t attr;

    transport.hello = GREETING_SIZE;
    if (!r)
        return error_oom(err);
    r->o = options;
    r->ctx = ctx;
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&r->change, &attr);
    (void)pthread_condattr_destroy(&attr);
    int rc = -1;
    if (open_all(r, err) == 0 && (r->report = report_open(options->status_fd, NULL, ctx, err)) &&
        (r->listener = listener_open(options->laddr, &transport, err))) {
        log_info(context_log(ctx), "Serving", log_str("addr", listener_address(r->listener)));
        report_event(r->report, "listening",
                     log_fields(log_str("addr", listener_address(r->listener))));
        rc = accept_all(r, err);
        end_all(r);
        log_info(context_log(ctx), "Exiting gracefully", log_uint("served", r->served));
    }
    listener_close(r->listener);
    if (report_close(r->report, rc < 0 ? NULL : err) < 0)
        rc = -1;
    for (size_t i = 0; i < r->n; i++) {
        free(r->items[i].name);
        free(r->items[i].path);
    }
    free(r->machine);
    free(r->state);
    (void)pthread_mutex_destroy(&r->lock);
    (void)pthread_cond_destroy(&r->change);
    return rc;
}
