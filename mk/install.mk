# SPDX-License-Identifier: Apache-2.0
# install.mk - manual pages, completion, install, dist
#
# Input: programs (compile.mk), NAME.1.in beside each program's main.
# Output: goals man, install, uninstall, dist; $(OUTPUT_DIR)/man.
#
# Pages and completion are made from the table of options that each program prints itself
# (--dump-command), so they cannot tell another story than --help.

man-sources := $(wildcard $(program-sources:.c=.1.in))
man-dir := $(OUTPUT_DIR)/man
man-pages := $(addprefix $(man-dir)/,$(notdir $(man-sources:.1.in=.1)))
completion := $(man-dir)/drafter.bash

#: man - manual pages and bash completion, in out/man
.PHONY: man
man: $(man-pages) $(completion)

define man-rule
$(man-dir)/$(notdir $1).1: $1.1.in $1 mk/man.awk mk/config.mk
	$$(call say,MAN,$$@)
	@mkdir -p $$(@D)
	$$(Q)$1 --dump-command | awk -v page=$1.1.in -v version=$(VERSION) -v date=$(VERSION_DATE) \
	    -f mk/man.awk >$$@
endef
$(foreach m,$(man-sources:.1.in=),$(eval $(call man-rule,$m)))

$(completion): $(program-sources:.c=) mk/completion.awk
	$(call say,COMPL,$@)
	@mkdir -p $(@D)
	$(Q)for p in $(program-sources:.c=); do $$p --dump-command; done | awk -f mk/completion.awk >$@

# Pages that belong to no program: formats (5) and overviews (7), written by hand.
other-pages := $(wildcard oci/*/*.[57] blueprint/*.[57] runtime/*/*.[57] runtime/*/*/*.[57])

bin-dir = $(DESTDIR)$(PREFIX)/bin
man-root = $(DESTDIR)$(PREFIX)/share/man
man1-dir = $(DESTDIR)$(PREFIX)/share/man/man1
unit-dir = $(DESTDIR)$(PREFIX)/lib/systemd/system
unit-sources := $(wildcard runtime/net/systemd/*.service)
completion-dir = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
# bash-completion looks a command up by its name: one file, and a link to it for each.
program-names = $(notdir $(program-sources:.c=))

#: install - programs, libdrafter, manual pages, completion and systemd units below DESTDIR and PREFIX
#: uninstall - remove exactly those
#: dist - a source archive, in out/: of what is committed, or in an unpacked archive of its files
.PHONY: install uninstall dist
install: all man
	install -d '$(bin-dir)' '$(man1-dir)' '$(completion-dir)' '$(unit-dir)'
	install -m 755 $(program-sources:.c=) '$(bin-dir)'
	$(if $(man-pages),install -m 644 $(man-pages) '$(man1-dir)')
	$(foreach p,$(other-pages),install -D -m 644 $p '$(man-root)/man$(subst .,,$(suffix $p))/$(notdir $p)' &&) :
	install -m 644 $(completion) '$(completion-dir)/drafter'
	cd '$(completion-dir)' && for p in $(program-names); do ln -sf drafter $$p; done
	for u in $(unit-sources); do \
	    sed 's|@bindir@|$(PREFIX)/bin|' "$$u" >'$(unit-dir)'/"$${u##*/}" || exit; done
	$(install-libraries)
uninstall:
	$(uninstall-libraries)
	cd '$(bin-dir)' && rm -f $(program-names)
	cd '$(unit-dir)' && rm -f $(notdir $(unit-sources))
	cd '$(man1-dir)' && rm -f $(notdir $(man-pages))
	$(foreach p,$(other-pages),rm -f '$(man-root)/man$(subst .,,$(suffix $p))/$(notdir $p)';)
	cd '$(completion-dir)' && rm -f drafter $(program-names)
dist:
	@mkdir -p '$(OUTPUT_DIR)'
	$(call say,DIST,$(OUTPUT_DIR)/drafter-$(VERSION).tar.gz)
	$(Q)tools/make-dist.sh drafter-$(VERSION) '$(OUTPUT_DIR)/drafter-$(VERSION).tar.gz'
