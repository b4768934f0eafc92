/* SPDX-License-Identifier: Apache-2.0
 * commit.pml - the moment a VM changes hosts, as a spin model
 *
 * What is modelled is the end of a migration (runtime/migrate): the VM stands still on the source and
 * its last blocks are on the way. Either side may die at any step and the connection may be cut at any
 * step, any number of times up to CUTS; after a cut everything in flight is lost and the sides may
 * find each other again with the session's token. A VM dies with the side that runs it.
 *
 * Held in every reachable state:
 *   - at most one side runs the VM;
 *   - while the source lives, the VM is not lost: it runs somewhere, or the source still has it
 *     (suspended, with all its devices), or the target ran it and died with it.
 * And no side is left waiting for ever while both live and the link can come back.
 *
 * -DBROKEN_RESUME, -DBROKEN_EARLY and -DBROKEN_FORGET each put a mistake in; the model must find it.
 */
#ifndef CUTS
#define CUTS 2
#endif

mtype = { FINAL, READY, COMMIT, RUNNING, GIVEUP };

chan to_target = [2] of { mtype };
chan to_source = [2] of { mtype };

bool linked = true;
byte cuts = 0;

bool source_alive = true, target_alive = true;
bool source_runs = false;     /* suspended at the start of the model */
bool source_has = true;       /* devices and state are kept */
bool committed = false;       /* the durable record */
bool rolled_back = false;
bool source_done = false;

bool target_loaded = false, target_runs = false, target_ran = false, target_gave_up = false;

#define at_most_one  (!(source_runs && target_runs))
#define not_lost     (!source_alive || source_runs || source_has || target_runs || target_ran)

inline cut() {
    atomic {
        linked && cuts < CUTS ->
        linked = false; cuts++;
        do
        :: to_target?_
        :: to_source?_
        :: empty(to_target) && empty(to_source) -> break
        od
    }
}

/* The source takes a session up again only once it has committed; before, a cut is its rollback. */
inline relink() {
    atomic { !linked && committed && source_alive && target_alive && !source_done && !rolled_back ->
        linked = true }
}

active proctype Link() {
end_link:
    do
    :: cut()
    :: relink()
    od
}

active proctype Killer() {
    if
    :: atomic { source_alive = false; source_runs = false; linked = false }
    :: atomic { target_alive = false; target_runs = false; linked = false }
    :: skip
    fi
}

active proctype Source() {
    /* The last set is on the way; before READY nothing is decided. */
    to_target!FINAL;
#ifdef BROKEN_EARLY
    atomic { to_target!COMMIT; committed = true }
#endif
before_commit:
    do
    :: atomic { source_alive && linked && to_source?[READY] -> to_source?READY };
        /* The record first, durable, then the word. */
        committed = true;
        if
        :: atomic { linked -> to_target!COMMIT }
        :: !linked -> skip
        fi;
        goto after_commit
    :: atomic { source_alive && (!linked || to_source?[GIVEUP]) ->
        /* Rollback: the source runs it again, and will refuse the session from here on. */
        source_runs = true; rolled_back = true };
        assert(at_most_one);
        goto end_source
    :: !source_alive -> goto end_source
    od;

after_commit:
    do
    :: atomic { source_alive && linked && to_source?[RUNNING] -> to_source?RUNNING };
        atomic { source_done = true; source_has = false };
        goto end_source
    :: atomic { source_alive && linked && to_source?[READY] -> to_source?READY };
        /* The target took the session up again and has not had the word: say it again. */
        if
        :: atomic { linked -> to_target!COMMIT }
        :: !linked -> skip
        fi
    :: atomic { source_alive && linked && to_source?[GIVEUP] -> to_source?GIVEUP;
        /* It says that it never ran it and never will: the one safe way back without a person. */
        source_runs = true; rolled_back = true };
        assert(at_most_one);
        goto end_source
#ifdef BROKEN_RESUME
    :: atomic { source_alive && !linked -> source_runs = true; rolled_back = true };
        assert(at_most_one);
        goto end_source
#endif
    :: atomic { source_alive && !linked && !target_alive && !target_ran ->
        /* A person looks at the target, finds it dead, and takes the VM back. */
        source_runs = true; rolled_back = true };
        assert(at_most_one);
        goto end_source
    :: !source_alive -> goto end_source
    :: source_alive && !target_alive && target_ran -> goto end_source
    od;
end_source:
    skip
}

active proctype Target() {
end_wait:
    do
    :: atomic { target_alive && linked && to_target?[FINAL] -> to_target?FINAL; target_loaded = true };
        if
        :: atomic { linked && target_alive -> to_source!READY }
        :: !linked || !target_alive -> skip
        fi
    :: atomic { target_alive && linked && target_loaded && !target_runs && to_target?[COMMIT] ->
        to_target?COMMIT; target_runs = true; target_ran = true };
        assert(at_most_one);
        if
        :: atomic { linked && target_alive -> to_source!RUNNING }
        :: !linked || !target_alive -> skip
        fi
    :: atomic { target_alive && linked && target_runs && to_target?[COMMIT] -> to_target?COMMIT;
        to_source!RUNNING }
    :: atomic { target_alive && linked && target_loaded && !target_runs && !target_gave_up &&
                empty(to_source) && empty(to_target) && cuts > 0 -> to_source!READY }
    :: atomic { target_alive && linked && target_runs && !source_done && empty(to_source) && cuts > 0 ->
        to_source!RUNNING }
    :: atomic { target_alive && linked && target_loaded && !target_runs && !target_gave_up && cuts > 0 &&
                empty(to_source) && !to_target?[COMMIT] ->
        /* Tired of waiting: it destroys its copy first, then says so. */
        target_gave_up = true; target_loaded = false; to_source!GIVEUP }
    :: atomic { target_alive && linked && target_gave_up && empty(to_source) -> to_source!GIVEUP }
    :: atomic { target_alive && linked && target_gave_up && to_target?[COMMIT] -> to_target?COMMIT }
    :: atomic { target_alive && !linked && target_loaded && !target_runs && (rolled_back || !source_alive) ->
        /* Nobody answers the session any more. */
        target_loaded = false; target_gave_up = true }
    :: !target_alive -> break
    :: source_done || (rolled_back && !target_loaded) -> break
    od;
end_target:
    skip
}

active proctype Watch() {
end_watch:
    do
    :: atomic { !at_most_one -> assert(false) }
#ifdef BROKEN_FORGET
    :: atomic { committed && !source_done && source_has -> source_has = false }
#endif
    :: atomic { !not_lost -> assert(false) }
    od
}
