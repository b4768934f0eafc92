// SPDX-License-Identifier: Apache-2.0
/* library.c - log, events and option structs of libdrafter */
#include "runtime/lib/library.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/json.h"

const char *drafter_version(void)
{
    return DRAFTER_VERSION;
}

/* ---- Log and events ----------------------------------------------------------------------- */

static void sink(void *opaque, enum log_level level, const char *message,
                 const struct log_field *fields)
{
    const struct drafter *d = opaque;
    cleanup_json struct json_object *obj = json_object_new_object();

    for (const struct log_field *f = fields; obj && f->kind != LOG_FIELD_END; f++) {
        struct json_object *v = f->kind == LOG_FIELD_STR    ? json_object_new_string(f->s)
                                : f->kind == LOG_FIELD_INT  ? json_object_new_int64(f->i)
                                : f->kind == LOG_FIELD_UINT ? json_object_new_uint64(f->u)
                                                            : json_object_new_double(f->d);
        (void)json_object_object_add(obj, f->key, v);
    }
    const char *text = obj ? json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN) : NULL;
    d->o.log(d->o.opaque, (enum drafter_level)level, message, text ? text : "{}");
}
_Static_assert((int)DRAFTER_DEBUG == (int)LOG_LEVEL_DEBUG &&
                   (int)DRAFTER_WARN == (int)LOG_LEVEL_WARN,
               "levels are passed on as they are");

static void report(void *opaque, const char *phase, uint64_t done, uint64_t total, const char *unit)
{
    const struct drafter_event event = {
        .kind = DRAFTER_EVENT_PROGRESS, .phase = phase, .done = done, .total = total, .unit = unit};
    library_event(opaque, &event);
}

void library_event(const struct drafter *d, const struct drafter_event *event)
{
    if (d->o.event)
        d->o.event(d->o.opaque, event);
}

struct drafter *drafter_new(const struct drafter_options *options, struct drafter_error *err)
{
    cleanup_free struct drafter *d = calloc(1, sizeof(*d));

    if (!d) {
        (void)error_oom(library_error(err));
        return NULL;
    }
    if (options &&
        library_options(&d->o, sizeof(d->o), options, "drafter_options", library_error(err)) < 0)
        return NULL;
    if (cancel_init(&d->cancel, library_error(err)) < 0)
        return NULL;
    d->log = (struct log){
        .level = (enum log_level)d->o.log_level, .sink = d->o.log ? sink : NULL, .opaque = d};
    d->progress = (struct progress){.report = report, .opaque = d};
    d->ctx = (struct context){.log = &d->log, .progress = &d->progress, .cancel = &d->cancel};
    return steal_ptr(&d);
}

void drafter_free(struct drafter *d)
{
    if (!d)
        return;
    cancel_destroy(&d->cancel);
    free(d);
}

void drafter_cancel(struct drafter *d)
{
    cancel_request(&d->cancel);
}

/* ---- Options ------------------------------------------------------------------------------ */

int library_options(void *ret, size_t size, const void *options, const char *what,
                    struct error *err)
{
    size_t given;

    if (!options)
        return error_set(err, ERROR_USAGE, "%s: missing", what);
    memcpy(&given, options, sizeof(given));
    if (given < sizeof(given))
        return error_set(err, ERROR_USAGE, "%s: its size is not set", what);
    for (size_t i = size; i < given; i++)
        if (((const char *)options)[i])
            return error_set(err, ENOTSUP,
                             "%s: sets what libdrafter " DRAFTER_VERSION " does not know", what);
    memset(ret, 0, size);
    memcpy(ret, options, given < size ? given : size);
    return 0;
}

struct holder {
    struct vm_opts vm;
};

/* The defaults stand in one table, which is the commands'. */
static int defaults(struct vm_opts *ret, struct error *err)
{
    static const struct option table[] = {VM_OPTIONS(struct holder, vm)};
    const struct command cmd = {.name = "libdrafter",
                                .options = table,
                                .n_options = ARRAY_SIZE(table),
                                .options_size = sizeof(struct holder)};
    char name[] = "libdrafter", *argv[] = {name, NULL};
    struct holder h;
    int operand;

    if (command_parse(&cmd, 1, argv, &h, &operand, err) < 0)
        return -1;
    *ret = h.vm;
    command_release(&cmd, &h); /* no list or text was given: nothing of *ret goes */
    return 0;
}

int library_vm(const struct drafter_vm *vm, struct vm_opts *ret, struct error *err)
{
    struct vm_opts o;

    for (size_t i = 0; i < ARRAY_SIZE(vm->reserved); i++)
        if (vm->reserved[i])
            return error_set(err, ENOTSUP,
                             "drafter_vm: sets what libdrafter " DRAFTER_VERSION " does not know");
    if (vm->cgroup_version < 0 || vm->cgroup_version > 2)
        return error_set(err, ERROR_USAGE, "drafter_vm: cgroup_version %d: must be 0, 1 or 2",
                         vm->cgroup_version);
    if (defaults(&o, err) < 0)
        return -1;
    const struct {
        const char *given, **member;
    } words[] = {{vm->hypervisor, &o.hypervisor},
                 {vm->accel, &o.accel},
                 {vm->firecracker_bin, &o.firecracker_bin},
                 {vm->jailer_bin, &o.jailer_bin},
                 {vm->qemu_bin, &o.qemu_bin},
                 {vm->folder, &o.base},
                 {vm->net, &o.net},
                 {vm->netns, &o.netns},
                 {vm->tap, &o.tap},
                 {vm->mac, &o.mac},
                 {vm->cgroup_parent, &o.cgroup_parent}};
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (words[i].given)
            *words[i].member = words[i].given;
    o.forwards = (struct option_list){.items = (const char **)vm->forwards, .count = 0};
    while (vm->forwards && vm->forwards[o.forwards.count])
        o.forwards.count++;
    o.uid = vm->set_user ? (int64_t)vm->uid : -1;
    o.gid = vm->set_user ? (int64_t)vm->gid : -1;
    o.cgroup_version = (uint64_t)vm->cgroup_version;
    o.numa_node = vm->set_numa_node ? vm->numa_node : -1;
    o.enable_input = vm->console_in > 0;
    o.enable_output = vm->console_out > 0;
    o.console_in = vm->console_in;
    o.console_out = vm->console_out;
    if (vm->timeout_ms)
        o.resume_timeout = library_ns(vm->timeout_ms);
    *ret = o;
    return 0;
}
