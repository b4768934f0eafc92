// SPDX-License-Identifier: Apache-2.0
/* index.c - from index.json to the manifest of the wanted name and platform
 *
 * Theory of operation: the entries of index.json that bear the wanted name (all, when none is
 * wanted and they do not bear different ones) are searched depth first, nested indexes included. An
 * entry's platform is what its descriptor says; where that is silent, as in layouts of one
 * platform, its image config is asked. The best match wins, among equals the first (image-index.md:
 * "the first matching entry SHOULD be used"). Depth and the number of entries looked at are
 * limited, which also ends cycles (which only a broken hash could make).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "oci/image/layout.h"
#include "runtime/base/json.h"

#define REF_ANNOTATION "org.opencontainers.image.ref.name"

/* How well an entry fits. */
enum score {
    SCORE_NONE,
    SCORE_OTHER_VARIANT, /* no variant is wanted, but this one is for a particular one */
    SCORE_EXACT,
};

struct search {
    int layout;
    char architecture[64], variant[64]; /* wanted; variant "" = any */
    unsigned entries;                   /* looked at so far */
    enum score best;
    struct image_descriptor found;
    char others[400]; /* platforms that did not fit, for the error text */
};

/* The variant that an architecture's plain name means (image-index.md, platform variants). */
static const char *default_variant(const char *architecture)
{
    if (strcmp(architecture, "arm64") == 0)
        return "v8";
    if (strcmp(architecture, "amd64") == 0)
        return "v1";
    return "";
}

static enum score fit(const struct search *s, const struct image_platform *p)
{
    const char *usual = default_variant(s->architecture);
    const char *has = *p->variant ? p->variant : usual;
    const char *wants = *s->variant ? s->variant : usual;

    if (strcmp(p->os, "linux") != 0 || strcmp(p->architecture, s->architecture) != 0)
        return SCORE_NONE;
    if (strcmp(has, wants) == 0)
        return SCORE_EXACT;
    return *s->variant ? SCORE_NONE : SCORE_OTHER_VARIANT;
}

static void append(char *list, size_t size, const char *text)
{
    size_t used = strlen(list);

    if (used + 8 >= size || strstr(list, text))
        return;
    if (used + strlen(text) + 8 >= size)
        text = "...";
    (void)snprintf(list + used, size - used, "%s%s", used ? ", " : "", text);
}

static void note_other(struct search *s, const struct image_platform *p)
{
    char text[128];

    /* Attestations and the like, which builders put beside images, say "unknown". */
    if (strcmp(p->os, "unknown") == 0)
        return;
    (void)snprintf(text, sizeof(text), "%.30s/%.30s%s%.30s", *p->os ? p->os : "?",
                   *p->architecture ? p->architecture : "?", *p->variant ? "/" : "", p->variant);
    append(s->others, sizeof(s->others), text);
}

static void consider(struct search *s, const struct image_descriptor *d,
                     const struct image_platform *p)
{
    enum score score = fit(s, p);

    if (score == SCORE_NONE)
        note_other(s, p);
    if (score > s->best) {
        s->best = score;
        s->found = *d;
        s->found.media_type = image_media_type(d->media_type)->name;
    }
}

static int consider_manifest(struct search *s, struct json_object *entry,
                             const struct image_descriptor *d, const char *what, struct error *err)
{
    struct json_object *obj = NULL;
    struct image_platform platform;

    int rc = json_get_object(entry, "platform", what, &obj, err);
    if (rc < 0)
        return -1;
    if (rc == JSON_OK) {
        if (layout_parse_platform(obj, what, &platform, err) < 0)
            return -1;
        consider(s, d, &platform);
        return 0;
    }
    cleanup_json struct json_object *manifest = layout_read_blob(s->layout, d, "manifest", err);
    if (!manifest || layout_check_kind(manifest, IMAGE_KIND_MANIFEST, "manifest", err) < 0)
        return -1;
    cleanup_json struct json_object *config = layout_read_config(s->layout, manifest, err);
    if (!config || layout_parse_platform(config, "image config", &platform, err) < 0)
        return -1;
    consider(s, d, &platform);
    return 0;
}

static int search_index(struct search *s, struct json_object *index, const char *ref,
                        const char *what, unsigned depth, struct error *err);

static int consider_entry(struct search *s, struct json_object *entry, const char *what,
                          unsigned depth, struct error *err)
{
    struct image_descriptor d;

    if (layout_parse_descriptor(entry, INT64_MAX, what, &d, err) < 0)
        return -1;
    enum image_kind kind = image_media_type(d.media_type)->kind;
    if (kind == IMAGE_KIND_MANIFEST)
        return consider_manifest(s, entry, &d, what, err);
    if (kind != IMAGE_KIND_INDEX) {
        /* image-index.md: entries of an unknown type are to be ignored. */
        char text[128];
        (void)snprintf(text, sizeof(text), "\"%.100s\"", d.media_type);
        append(s->others, sizeof(s->others), text);
        return 0;
    }
    if (depth >= IMAGE_INDEX_DEPTH_MAX)
        return error_set(err, ELOOP, "%s: indexes nested deeper than %d", what,
                         IMAGE_INDEX_DEPTH_MAX);
    cleanup_json struct json_object *index = layout_read_blob(s->layout, &d, "index", err);
    if (!index)
        return error_wrap(err, "%s", what);
    char hex[SHA256_HEX_SIZE], name[96];
    digest_hex(d.digest, hex);
    (void)snprintf(name, sizeof(name), "index %.12s", hex);
    return search_index(s, index, NULL, name, depth + 1, err);
}

/* The name an entry of index.json bears, NULL for none. */
static int entry_ref(struct json_object *entry, const char *what, const char **ret,
                     struct error *err)
{
    struct json_object *annotations = NULL;
    const char *ref = NULL;

    int rc = json_get_object(entry, "annotations", what, &annotations, err);
    if (rc < 0 ||
        (rc == JSON_OK && json_get_string(annotations, REF_ANNOTATION, what, &ref, err) < 0))
        return -1;
    *ret = ref;
    return 0;
}

static int search_index(struct search *s, struct json_object *index, const char *ref,
                        const char *what, unsigned depth, struct error *err)
{
    struct json_object *entries;
    char place[160];

    if (layout_check_kind(index, IMAGE_KIND_INDEX, what, err) < 0 ||
        json_required(json_get_array(index, "manifests", what, &entries, err), "manifests", what,
                      err) < 0)
        return -1;
    for (size_t i = 0; i < json_object_array_length(entries); i++) {
        struct json_object *entry = json_object_array_get_idx(entries, i);
        const char *name;
        (void)snprintf(place, sizeof(place), "%s: entry %zu", what, i);
        if (++s->entries > IMAGE_INDEX_ENTRIES_MAX)
            return error_set(err, EFBIG, "%s: more than %d entries in all indexes", place,
                             IMAGE_INDEX_ENTRIES_MAX);
        if (ref) {
            if (entry_ref(entry, place, &name, err) < 0)
                return -1;
            if (!name || strcmp(name, ref) != 0)
                continue;
        }
        if (consider_entry(s, entry, place, depth, err) < 0)
            return -1;
    }
    return 0;
}

/* Checks that index.json has the wanted name, or when none is wanted that there is no choice. */
static int check_names(struct json_object *index, const char *ref, struct error *err)
{
    struct json_object *entries;
    const char *first = NULL;
    char names[400] = "";
    bool found = false, several = false;

    if (json_required(json_get_array(index, "manifests", "index.json", &entries, err), "manifests",
                      "index.json", err) < 0)
        return -1;
    size_t n = json_object_array_length(entries);
    if (n > IMAGE_INDEX_ENTRIES_MAX)
        return error_set(err, EFBIG, "index.json: %zu entries, more than the limit of %d", n,
                         IMAGE_INDEX_ENTRIES_MAX);
    if (n == 0)
        return error_set(err, ENOENT, "index.json: the layout holds no image");
    for (size_t i = 0; i < n; i++) {
        const char *name;
        if (entry_ref(json_object_array_get_idx(entries, i), "index.json", &name, err) < 0)
            return -1;
        if (i == 0)
            first = name;
        several |= (!name != !first) || (name && strcmp(name, first) != 0);
        found |= ref && name && strcmp(name, ref) == 0;
        append(names, sizeof(names), name ? name : "(one without a name)");
    }
    if (ref && !found)
        return error_set(err, ENOENT, "holds no image named \"%s\"; there is %s", ref, names);
    if (!ref && several)
        return error_set(err, EINVAL, "holds several images, name one of: %s", names);
    return 0;
}

static int parse_wanted(struct search *s, const char *text, struct error *err)
{
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);

    if (n == 0 || n >= sizeof(s->architecture) ||
        (slash && (!slash[1] || strchr(slash + 1, '/') || strlen(slash + 1) >= sizeof(s->variant))))
        return error_set(err, EINVAL,
                         "architecture \"%.100s\": \"ARCHITECTURE\" or \"ARCHITECTURE/VARIANT\" "
                         "wanted, as in amd64 or arm64/v8",
                         text);
    memcpy(s->architecture, text, n);
    s->architecture[n] = '\0';
    (void)snprintf(s->variant, sizeof(s->variant), "%s", slash ? slash + 1 : "");
    return 0;
}

int layout_select(int layout, const char *ref, const char *architecture,
                  struct image_descriptor *ret, struct error *err)
{
    struct search s = {.layout = layout};

    if (ref && !*ref)
        ref = NULL;
    if (parse_wanted(&s, architecture, err) < 0)
        return -1;
    cleanup_json struct json_object *index = layout_read_file(layout, "index.json", err);
    if (!index || check_names(index, ref, err) < 0 ||
        search_index(&s, index, ref, "index.json", 0, err) < 0)
        return -1;
    if (s.best == SCORE_NONE)
        return error_set(err, ENOENT, "no image for linux/%s; there is %s", architecture,
                         *s.others ? s.others : "none at all");
    *ret = s.found;
    return 0;
}
