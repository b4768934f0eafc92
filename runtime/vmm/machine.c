// SPDX-License-Identifier: Apache-2.0
/* machine.c - the description of a machine: checks, its JSON form, its kernel command line
 *
 * The JSON form is what travels with a package and to a migration's target, and what QEMU's state
 * file carries to be compared with the machine it is loaded into:
 *
 *     {"hypervisor":"qemu","accel":"tcg","qemuMachine":"pc-q35-7.2","cpuModel":"...","cpuCount":1,
 *      "memoryMiB":1024,"disks":[{"name":"disk","readOnly":false,"sync":false}, ...],
 *      "nic":{"mac":"02:0e:d9:fd:68:3d","id":"tap0"},"vsock":true,"rng":false}
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json_tokener.h>

#include "runtime/base/json.h"
#include "runtime/vmm/driver.h"

#define MACHINE_TEXT_MAX (64u << 10)

static const char *const hypervisor_names[] = {"auto", "firecracker", "qemu"};
static const char *const accel_names[] = {"auto", "kvm", "tcg"};

const char *vmm_hypervisor_name(enum vmm_hypervisor hypervisor)
{
    return (unsigned)hypervisor < ARRAY_SIZE(hypervisor_names) ? hypervisor_names[hypervisor] : "?";
}

const char *vmm_accel_name(enum vmm_accel accel)
{
    return (unsigned)accel < ARRAY_SIZE(accel_names) ? accel_names[accel] : "?";
}

static int find_word(const char *word, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(word, names[i]) == 0)
            return (int)i;
    return -1;
}

int vmm_hypervisor_parse(const char *word, enum vmm_hypervisor *ret, struct error *err)
{
    int i = find_word(word, hypervisor_names, ARRAY_SIZE(hypervisor_names));
    if (i < 0)
        return error_set(err, ERROR_USAGE, "hypervisor \"%s\": is none of auto, firecracker, qemu",
                         word);
    *ret = (enum vmm_hypervisor)i;
    return 0;
}

int vmm_accel_parse(const char *word, enum vmm_accel *ret, struct error *err)
{
    int i = find_word(word, accel_names, ARRAY_SIZE(accel_names));
    if (i < 0)
        return error_set(err, ERROR_USAGE, "accelerator \"%s\": is none of auto, kvm, tcg", word);
    *ret = (enum vmm_accel)i;
    return 0;
}

/* ---- Checks ------------------------------------------------------------------------------- */

static int check_id(const char *id, const char *what, struct error *err)
{
    size_t n = strlen(id);

    if (n < 1 || n > VMM_NAME_MAX)
        return error_set(err, EINVAL, "%s \"%.64s\": 1 to %d characters are allowed", what, id,
                         VMM_NAME_MAX);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)id[i]) && id[i] != '_')
            return error_set(err, EINVAL, "%s \"%s\": only letters, digits and '_' are allowed",
                             what, id);
    return 0;
}

int vmm_path_check(const char *path, const char *what, struct error *err)
{
    size_t n = strlen(path);

    if (n < 1 || n > VMM_PATH_MAX)
        return error_set(err, EINVAL, "%s: a path of 1 to %d bytes is needed", what, VMM_PATH_MAX);
    if (path[0] == '/')
        return error_set(err, EINVAL, "%s \"%s\": must be relative to the VM directory", what,
                         path);
    for (const char *p = path; *p;) {
        size_t part = strcspn(p, "/");
        if (part == 2 && p[0] == '.' && p[1] == '.')
            return error_set(err, EINVAL, "%s \"%s\": leaves the VM directory", what, path);
        p += part;
        p += *p == '/';
    }
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)path[i] < 0x20 || path[i] == 0x7f)
            return error_set(err, EINVAL, "%s: has control characters in its path", what);
    return 0;
}

/* A word for QEMU's -machine or -cpu: no '=' tricks beyond feature lists, no blanks. */
static int check_word(const char *word, const char *what, struct error *err)
{
    size_t n = strlen(word);

    if (n < 1 || n > 255)
        return error_set(err, EINVAL, "%s: 1 to 255 characters are allowed", what);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)word[i]) && !strchr("_-.,+=", word[i]))
            return error_set(err, EINVAL, "%s \"%s\": character '%c' is not allowed", what, word,
                             isprint((unsigned char)word[i]) ? word[i] : '?');
    return 0;
}

static int check_mac(const char *mac, struct error *err)
{
    unsigned first = 0;

    for (int i = 0; i < 17; i++) {
        bool good = i % 3 == 2 ? mac[i] == ':' : isxdigit((unsigned char)mac[i]) != 0;
        if (!good) /* also at the NUL of a shorter text */
            return error_set(err, EINVAL,
                             "MAC address \"%.32s\": must be six hex pairs, as "
                             "02:0e:d9:fd:68:3d",
                             mac);
    }
    if (mac[17] != '\0' || sscanf(mac, "%2x", &first) != 1)
        return error_set(err, EINVAL, "MAC address \"%.32s\": must be six hex pairs", mac);
    if (first & 1)
        return error_set(err, EINVAL, "MAC address \"%s\": is a multicast address", mac);
    return 0;
}

static int check_nic(const struct vmm_nic *nic, struct error *err)
{
    if (nic->kind == VMM_NIC_NONE)
        return 0;
    if (!nic->mac)
        return error_set(err, EINVAL, "NIC: a MAC address is needed");
    if (check_mac(nic->mac, err) < 0)
        return error_wrap(err, "NIC");
    if (nic->id && check_id(nic->id, "NIC: id", err) < 0)
        return -1;
    if (nic->kind == VMM_NIC_TAP) {
        const char *tap = vmm_tap(nic);
        /* IFNAMSIZ 16 with the NUL; what the kernel's dev_valid_name() refuses. */
        if (strlen(tap) < 1 || strlen(tap) > 15 || strpbrk(tap, "/: \t\n%,") || tap[0] == '.')
            return error_set(err, EINVAL, "NIC: \"%.32s\" is no interface name", tap);
    }
    return 0;
}

int vmm_machine_check(const struct vmm_machine *m, struct error *err)
{
    if (m->cpus < 1 || m->cpus > VMM_CPUS_MAX)
        return error_set(err, EINVAL, "machine: %u CPUs: 1 to %d are allowed", m->cpus,
                         VMM_CPUS_MAX);
    if (m->memory_mib < 1 || m->memory_mib > VMM_MEMORY_MIB_MAX)
        return error_set(err, EINVAL, "machine: %u MiB of memory: 1 to %u are allowed",
                         m->memory_mib, VMM_MEMORY_MIB_MAX);
    if (m->n_disks > VMM_DISKS_MAX)
        return error_set(err, EINVAL, "machine: %zu disks: at most %d are allowed", m->n_disks,
                         VMM_DISKS_MAX);
    for (size_t i = 0; i < m->n_disks; i++) {
        const struct vmm_disk *d = &m->disks[i];
        if (!d->name)
            return error_set(err, EINVAL, "machine: disk %zu has no name", i);
        if (check_id(d->name, "machine: disk", err) < 0 ||
            vmm_path_check(vmm_disk_path(d), "machine: disk", err) < 0)
            return -1;
        for (size_t j = 0; j < i; j++)
            if (strcmp(d->name, m->disks[j].name) == 0)
                return error_set(err, EINVAL, "machine: two disks are named \"%s\"", d->name);
    }
    if (vmm_path_check(vmm_kernel(m), "machine: kernel", err) < 0 ||
        vmm_path_check(vmm_memory(m), "machine: memory", err) < 0 ||
        (m->initrd && vmm_path_check(m->initrd, "machine: initrd", err) < 0))
        return -1;
    if (m->boot_args && strlen(m->boot_args) > VMM_BOOT_ARGS_MAX)
        return error_set(err, E2BIG, "machine: boot arguments of %zu bytes: at most %d are allowed",
                         strlen(m->boot_args), VMM_BOOT_ARGS_MAX);
    for (const char *p = m->boot_args; p && *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
            return error_set(err, EINVAL,
                             "machine: boot arguments: only printable ASCII is allowed");
    if ((m->cpu_model && check_word(m->cpu_model, "machine: CPU model", err) < 0) ||
        (m->qemu_machine && check_word(m->qemu_machine, "machine: QEMU machine", err) < 0))
        return -1;
    if (check_nic(&m->nic, err) < 0)
        return error_wrap(err, "machine");
    return 0;
}

/* ---- JSON --------------------------------------------------------------------------------- */

static void add_string(struct json_object *obj, const char *key, const char *value)
{
    if (value)
        json_object_object_add(obj, key, json_object_new_string(value));
}

struct json_object *vmm_machine_to_json(const struct vmm_machine *m)
{
    struct json_object *doc = json_object_new_object();
    if (!doc)
        return NULL;
    add_string(doc, "hypervisor", vmm_hypervisor_name(m->hypervisor));
    add_string(doc, "accel", vmm_accel_name(m->accel));
    add_string(doc, "qemuMachine", m->qemu_machine);
    add_string(doc, "cpuModel", m->cpu_model);
    json_object_object_add(doc, "cpuCount", json_object_new_int64(m->cpus));
    json_object_object_add(doc, "memoryMiB", json_object_new_int64(m->memory_mib));
    struct json_object *disks = json_object_new_array();
    for (size_t i = 0; disks && i < m->n_disks; i++) {
        struct json_object *d = json_object_new_object();
        add_string(d, "name", m->disks[i].name);
        json_object_object_add(d, "readOnly", json_object_new_boolean(m->disks[i].read_only));
        json_object_object_add(d, "sync", json_object_new_boolean(m->disks[i].sync));
        json_object_array_add(disks, d);
    }
    json_object_object_add(doc, "disks", disks);
    if (m->nic.kind != VMM_NIC_NONE) {
        struct json_object *nic = json_object_new_object();
        add_string(nic, "mac", m->nic.mac);
        add_string(nic, "id", vmm_nic_id(&m->nic));
        json_object_object_add(doc, "nic", nic);
    }
    json_object_object_add(doc, "vsock", json_object_new_boolean(m->vsock));
    json_object_object_add(doc, "rng", json_object_new_boolean(m->rng));
    return doc;
}

char *vmm_machine_format(const struct vmm_machine *machine, struct error *err)
{
    if (vmm_machine_check(machine, err) < 0)
        return NULL;
    cleanup_json struct json_object *doc = vmm_machine_to_json(machine);
    char *text = doc ? json_format(doc) : NULL;
    if (!text)
        error_oom(err);
    return text;
}

/* Copies a string into the owning machine. Returns 0. */
static int keep(char const **slot, const char *value, struct error *err)
{
    if (!value)
        return 0;
    *slot = strdup(value);
    return *slot ? 0 : error_oom(err);
}

void vmm_machine_free(struct vmm_machine *m)
{
    if (!m)
        return;
    for (size_t i = 0; m->disks && i < m->n_disks; i++) {
        free((char *)m->disks[i].name);
        free((char *)m->disks[i].path);
    }
    free((struct vmm_disk *)m->disks);
    free((char *)m->qemu_machine);
    free((char *)m->cpu_model);
    free((char *)m->kernel);
    free((char *)m->initrd);
    free((char *)m->boot_args);
    free((char *)m->memory);
    free((char *)m->nic.mac);
    free((char *)m->nic.id);
    free((char *)m->nic.tap);
    free((char *)m->nic.forwards);
    free(m);
}

struct vmm_machine *vmm_machine_copy(const struct vmm_machine *m, struct error *err)
{
    cleanup_vmm_machine struct vmm_machine *c = calloc(1, sizeof(*c));
    struct vmm_disk *disks = calloc(m->n_disks + 1, sizeof(*disks));

    if (!c || !disks) {
        free(disks);
        error_oom(err);
        return NULL;
    }
    *c = (struct vmm_machine){
        .hypervisor = m->hypervisor,
        .accel = m->accel,
        .cpus = m->cpus,
        .memory_mib = m->memory_mib,
        .disks = disks,
        .n_disks = m->n_disks,
        .nic = {.kind = m->nic.kind, .passt_fd = m->nic.passt_fd},
        .vsock = m->vsock,
        .rng = m->rng,
    };
    for (size_t i = 0; i < m->n_disks; i++) {
        disks[i].read_only = m->disks[i].read_only;
        disks[i].sync = m->disks[i].sync;
        if (keep(&disks[i].name, m->disks[i].name, err) < 0 ||
            keep(&disks[i].path, m->disks[i].path, err) < 0)
            return NULL;
    }
    if (keep(&c->qemu_machine, m->qemu_machine, err) < 0 ||
        keep(&c->cpu_model, m->cpu_model, err) < 0 || keep(&c->kernel, m->kernel, err) < 0 ||
        keep(&c->initrd, m->initrd, err) < 0 || keep(&c->boot_args, m->boot_args, err) < 0 ||
        keep(&c->memory, m->memory, err) < 0 || keep(&c->nic.mac, m->nic.mac, err) < 0 ||
        keep(&c->nic.id, m->nic.id, err) < 0 || keep(&c->nic.tap, m->nic.tap, err) < 0 ||
        keep(&c->nic.forwards, m->nic.forwards, err) < 0)
        return NULL;
    return steal_ptr(&c);
}

static int parse_disks(struct json_object *array, struct vmm_disk *disks, struct error *err)
{
    static const char *const keys[] = {"name", "readOnly", "sync", NULL};
    char what[48];

    for (size_t i = 0; i < json_object_array_length(array); i++) {
        struct json_object *d = json_object_array_get_idx(array, i);
        (void)snprintf(what, sizeof(what), "machine: disks[%zu]", i);
        if (!json_object_is_type(d, json_type_object))
            return error_set(err, EBADMSG, "%s: not an object", what);
        if (json_only_keys(d, keys, what, err) < 0 ||
            json_required(json_get_string(d, "name", what, &disks[i].name, err), "name", what,
                          err) < 0 ||
            json_get_bool(d, "readOnly", what, &disks[i].read_only, err) < 0 ||
            json_get_bool(d, "sync", what, &disks[i].sync, err) < 0)
            return -1;
    }
    return 0;
}

static int parse_nic(struct json_object *obj, struct vmm_nic *nic, struct error *err)
{
    static const char *const keys[] = {"mac", "id", NULL};
    const char *what = "machine: nic";

    nic->kind = VMM_NIC_TAP;
    if (json_only_keys(obj, keys, what, err) < 0 ||
        json_required(json_get_string(obj, "mac", what, &nic->mac, err), "mac", what, err) < 0 ||
        json_get_string(obj, "id", what, &nic->id, err) < 0)
        return -1;
    return 0;
}

struct vmm_machine *vmm_machine_parse(const char *text, size_t len, struct error *err)
{
    static const char *const keys[] = {"hypervisor", "accel",     "qemuMachine", "cpuModel",
                                       "cpuCount",   "memoryMiB", "disks",       "nic",
                                       "vsock",      "rng",       NULL};
    const char *what = "machine";
    struct vmm_machine m = {0};
    struct vmm_disk disks[VMM_DISKS_MAX] = {0};
    struct json_object *list = NULL, *nic = NULL;
    const char *hypervisor = "auto", *accel = "auto";
    uint64_t cpus = 0, mib = 0;

    if (len > MACHINE_TEXT_MAX) {
        error_set(err, EFBIG, "machine: a description of %zu bytes is too long", len);
        return NULL;
    }
    cleanup_json struct json_object *doc = json_parse(text, len, what, err);
    if (!doc)
        return NULL;
    if (!json_object_is_type(doc, json_type_object)) {
        error_set(err, EBADMSG, "machine: not a JSON object");
        return NULL;
    }
    if (json_only_keys(doc, keys, what, err) < 0 ||
        json_get_string(doc, "hypervisor", what, &hypervisor, err) < 0 ||
        json_get_string(doc, "accel", what, &accel, err) < 0 ||
        json_get_string(doc, "qemuMachine", what, &m.qemu_machine, err) < 0 ||
        json_get_string(doc, "cpuModel", what, &m.cpu_model, err) < 0 ||
        json_required(json_get_u64(doc, "cpuCount", 1, VMM_CPUS_MAX, what, &cpus, err), "cpuCount",
                      what, err) < 0 ||
        json_required(json_get_u64(doc, "memoryMiB", 1, VMM_MEMORY_MIB_MAX, what, &mib, err),
                      "memoryMiB", what, err) < 0 ||
        json_get_array(doc, "disks", what, &list, err) < 0 ||
        json_get_object(doc, "nic", what, &nic, err) < 0 ||
        json_get_bool(doc, "vsock", what, &m.vsock, err) < 0 ||
        json_get_bool(doc, "rng", what, &m.rng, err) < 0 ||
        vmm_hypervisor_parse(hypervisor, &m.hypervisor, err) < 0 ||
        vmm_accel_parse(accel, &m.accel, err) < 0)
        return NULL;
    m.cpus = (uint32_t)cpus;
    m.memory_mib = (uint32_t)mib;
    if (list) {
        m.n_disks = json_object_array_length(list);
        if (m.n_disks > VMM_DISKS_MAX) {
            error_set(err, EBADMSG, "machine: %zu disks: at most %d are allowed", m.n_disks,
                      VMM_DISKS_MAX);
            return NULL;
        }
        if (parse_disks(list, disks, err) < 0)
            return NULL;
        m.disks = disks;
    }
    if ((nic && parse_nic(nic, &m.nic, err) < 0) || vmm_machine_check(&m, err) < 0)
        return NULL;
    return vmm_machine_copy(&m, err);
}

/* ---- Kernel command line ------------------------------------------------------------------ */

struct words {
    char text[VMM_BOOT_ARGS_MAX + 256];
    size_t len;
};

static void put_word(struct words *w, const char *word, size_t n)
{
    if (w->len + n + 2 > sizeof(w->text)) {
        w->len = sizeof(w->text); /* seen as too long below */
        return;
    }
    if (w->len)
        w->text[w->len++] = ' ';
    memcpy(w->text + w->len, word, n);
    w->len += n;
    w->text[w->len] = '\0';
}

/* Whether one of the kernel's words (before "--") begins with prefix. */
static bool has_word(const char *args, const char *prefix)
{
    for (const char *p = args; *p;) {
        size_t n = strcspn(p, " ");
        if (n == 2 && strncmp(p, "--", 2) == 0)
            return false;
        if (strncmp(p, prefix, strlen(prefix)) == 0)
            return true;
        p += n;
        p += strspn(p, " ");
    }
    return false;
}

static bool unwanted(const char *word, size_t n, enum vmm_hypervisor hypervisor,
                     enum vmm_accel accel)
{
    /* Devices are on PCI with QEMU; the other words name or bless the TSC, which under TCG is the
     * host's and changes its rate with a move. */
    static const char *const qemu[] = {"pci=off", NULL};
    static const char *const tcg[] = {"clocksource=", "tsc=", NULL};

    if (hypervisor != VMM_QEMU)
        return false;
    for (const char *const *p = qemu; *p; p++)
        if (n == strlen(*p) && strncmp(word, *p, n) == 0)
            return true;
    for (const char *const *p = tcg; accel == VMM_ACCEL_TCG && *p; p++)
        if (n >= strlen(*p) && strncmp(word, *p, strlen(*p)) == 0)
            return true;
    return false;
}

char *vmm_boot_args(const char *args, enum vmm_hypervisor hypervisor, enum vmm_accel accel,
                    struct error *err)
{
    /* Added unless a word of the same beginning is there. Firecracker: no PCI to look for, and a
     * reboot through the keyboard controller, which ends the process; its i8042 has no mouse.
     * QEMU: the NIC's name does not depend on its PCI slot. TCG: nothing speculates, while page
     * table isolation costs a third of the speed. */
    static const struct {
        const char *prefix, *word;
    } firecracker[] = {{"pci=", "pci=off"},
                       {"reboot=", "reboot=k"},
                       {"i8042.noaux", "i8042.noaux"},
                       {"i8042.nomux", "i8042.nomux"},
                       {"i8042.nopnp", "i8042.nopnp"},
                       {"i8042.dumbkbd", "i8042.dumbkbd"},
                       {NULL, NULL}},
      qemu[] = {{"net.ifnames=", "net.ifnames=0"}, {NULL, NULL}},
      tcg[] = {{"net.ifnames=", "net.ifnames=0"},
               {"mitigations=", "mitigations=off"},
               {"\n", "tsc=unstable"}, /* ours always: the caller's were taken out */
               {"\n", "clocksource=hpet"},
               {NULL, NULL}};
    __typeof__(&qemu[0]) add = hypervisor == VMM_FIRECRACKER ? firecracker
                               : accel == VMM_ACCEL_TCG      ? tcg
                                                             : qemu;
    struct words w = {.len = 0};
    const char *p = args ? args : VMM_BOOT_ARGS_DEFAULT;
    const char *all = p;

    p += strspn(p, " ");
    while (*p) {
        size_t n = strcspn(p, " ");
        if (n == 2 && strncmp(p, "--", 2) == 0)
            break; /* what follows is for the guest's init */
        if (!unwanted(p, n, hypervisor, accel))
            put_word(&w, p, n);
        p += n;
        p += strspn(p, " ");
    }
    for (; add->word; add++)
        if (!has_word(all, add->prefix))
            put_word(&w, add->word, strlen(add->word));
    if (*p)
        put_word(&w, p, strlen(p));
    if (w.len > VMM_BOOT_ARGS_MAX) {
        error_set(err, E2BIG,
                  "boot arguments: with the driver's additions longer than the %d bytes the kernel "
                  "reads",
                  VMM_BOOT_ARGS_MAX);
        return NULL;
    }
    char *copy = strdup(w.text);
    if (!copy)
        error_oom(err);
    return copy;
}
