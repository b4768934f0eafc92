// SPDX-License-Identifier: Apache-2.0
/* embed.c - resumes a machine from a package, talks to it, suspends it
 *
 *     embed PACKAGE OVERLAY_DIR
 *
 * The machine's console is on standard output; Ctrl-C suspends it.
 */
#include <drafter.h>
#include <signal.h>
#include <stdio.h>

static struct drafter *drafter;

static void stop(int sig)
{
    (void)sig;
    drafter_cancel(drafter); // NOLINT(bugprone-signal-handler): safe, says drafter.h
}

static void event(void *opaque, const struct drafter_event *e)
{
    (void)opaque;
    if (e->kind == DRAFTER_EVENT_RUNNING)
        fprintf(stderr, "it runs, in %s\n", drafter_machine_path(e->machine));
    else if (e->kind == DRAFTER_EVENT_SUSPENDED)
        fprintf(stderr, "it stands, and is kept\n");
}

int main(int argc, char **argv)
{
    struct drafter_options options = DRAFTER_OPTIONS_INIT;
    struct drafter_machine_options mo = DRAFTER_MACHINE_OPTIONS_INIT;
    struct drafter_error err = {0}, later = {0};

    if (argc != 3) {
        fprintf(stderr, "usage: embed PACKAGE OVERLAY_DIR\n");
        return 2;
    }
    options.event = event;
    mo.package = argv[1];
    mo.overlay_dir = argv[2];
    mo.vm.net = "none";
    mo.vm.console_out = 1;
    drafter = drafter_new(&options, &err);
    struct drafter_machine *m = drafter ? drafter_machine_new(drafter, &mo, &err) : NULL;
    (void)signal(SIGINT, stop);
    (void)signal(SIGTERM, stop);
    int rc = m ? drafter_machine_start(m, &err) : -1;
    if (rc == 0)
        rc = drafter_machine_serve(m, &err);
    if (m && drafter_machine_suspend(m, rc ? &later : &err) < 0)
        rc = -1;
    if (drafter_machine_free(m, rc ? &later : &err) < 0)
        rc = -1;
    drafter_free(drafter);
    if (rc < 0)
        fprintf(stderr, "embed: %s\n", err.text);
    return rc < 0;
}
