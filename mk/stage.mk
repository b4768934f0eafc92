# SPDX-License-Identifier: Apache-2.0
# stage.mk - the one template of a pipeline's stage
#
# Output: functions `stage`, `sh-quote`.
#
#   $(call stage,WHAT,OUTPUT,HINT,KEYS,COMMAND)
#
# is a recipe line that makes OUTPUT with COMMAND, written where "{}" stands, when one of KEYS (texts, or
# @FILE for a file's content; each quoted for the shell) has changed, and prints HINT when it fails;
# tools/stage.sh says more. Such goals are phony: whether there is something to do is decided by
# content, not by times, so a variable that changed counts and a copy that is the same does not.

stage = $(Q)V='$(V)' tools/stage.sh '$1' '$2' $(call sh-quote,$3) $4 -- $5
# A text as one word of a shell command.
sh-quote = '$(subst ','\'',$1)'
