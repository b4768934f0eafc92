# SPDX-License-Identifier: Apache-2.0
# guest.mk - the programs that run inside the guest: static, small, linked with musl
#
# Input: toolchain.mk, compile.mk; GUEST_CC, GUEST_CFLAGS.
# Output: blueprint/guest/drafter-agent and drafter-liveness, in `all`; their pages in `man`; with their systemd
# units in `install`, for images of guests made elsewhere; guest-programs; guest-objects
# (the same sources built with the host's flags, for the tests).
#
# They use runtime/wire, the light files of runtime/base, announce.c of runtime/net and nothing else. Kernel headers are the
# host's, looked for behind musl's own.

#? GUEST_CC, GUEST_CFLAGS: compiler and flags of the programs that run inside the guest
GUEST_CC ?= musl-gcc
GUEST_CFLAGS ?= -Os

guest-dir := blueprint/guest
guest-obj := $(OUTPUT_DIR)/obj/guest
guest-programs := $(guest-dir)/drafter-agent $(guest-dir)/drafter-liveness
guest-parts := $(filter-out $(guest-programs:=.c),$(wildcard $(guest-dir)/*.c))
guest-base := $(patsubst %,runtime/base/%.c,command options context error io log parse progress spawn) \
    $(wildcard runtime/wire/rpc_*.c) runtime/net/announce.c
guest-objects := $(call objects,$(guest-parts))

guest-cflags = -std=gnu17 -D_GNU_SOURCE -I. -DDRAFTER_VERSION='"$(VERSION)"' $(warnings) \
    -fstack-protector-strong -ffunction-sections -fdata-sections $(GUEST_CFLAGS)
guest-flags := $(guest-obj)/cflags.rsp
$(guest-flags): FORCE $(if $(filter depend,$(MAKECMDGOALS)),depend)
	@mkdir -p $(@D)
	@command -v $(firstword $(GUEST_CC)) >/dev/null || \
	    { echo "make: $(GUEST_CC) is missing: run 'make depend' first" >&2; exit 1; }
	@inc="-idirafter /usr/include/$$($(GUEST_CC) -print-multiarch) -idirafter /usr/include"; \
	new=$@.$$$$; printf '%s\n' $(call shell-quote,$(guest-cflags)) "$$inc" >$$new; \
	cmp -s $$new $@ && rm $$new || mv $$new $@

$(guest-obj)/%.o: %.c $(guest-flags)
	$(call say,GUESTCC,$<)
	@mkdir -p $(@D)
	$(Q)$(GUEST_CC) @$(guest-flags) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
	@awk -v src='$<' -v allowed='$(guest-dir) runtime/wire runtime/base runtime/net' -f mk/check-layers.awk \
	    $(@:.o=.d) || { rm -f $@; exit 1; }

# The linker takes from the archive only what a program needs.
$(guest-obj)/guest.a: $(patsubst %.c,$(guest-obj)/%.o,$(guest-parts) $(guest-base))
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcsD $@ $^
$(guest-programs): $(guest-dir)/%: $(guest-obj)/$(guest-dir)/%.o $(guest-obj)/guest.a
	$(call say,GUESTLD,$@)
	$(Q)$(GUEST_CC) -static -s -Wl,--gc-sections -o $@ $^

all: $(guest-programs)

man: $(guest-programs:$(guest-dir)/%=$(man-dir)/%.1)
$(guest-programs:$(guest-dir)/%=$(man-dir)/%.1): $(man-dir)/%.1: $(guest-dir)/%.1.in $(guest-dir)/% mk/man.awk mk/config.mk
	$(call say,MAN,$@)
	@mkdir -p $(@D)
	$(Q)$(guest-dir)/$* --dump-command | awk -v page=$< -v version=$(VERSION) -v date=$(VERSION_DATE) -f mk/man.awk >$@

# They run in guests, not here: neither in PATH nor among this host's units.
guest-lib = $(DESTDIR)$(PREFIX)/lib/drafter/guest
guest-units := $(wildcard $(guest-dir)/systemd/*.service)
.PHONY: guest-install guest-uninstall
install: guest-install
uninstall: guest-uninstall
guest-install: $(guest-programs) man
	install -d '$(guest-lib)' '$(man1-dir)'
	install -m 755 $(guest-programs) '$(guest-lib)'
	install -m 644 $(guest-units) '$(guest-lib)'
	install -m 644 $(guest-programs:$(guest-dir)/%=$(man-dir)/%.1) '$(man1-dir)'
guest-uninstall:
	cd '$(guest-lib)' && rm -f $(notdir $(guest-programs) $(guest-units))
	cd '$(man1-dir)' && rm -f $(notdir $(guest-programs:=.1))
clean: guest-clean
.PHONY: guest-clean
guest-clean:
	rm -f $(guest-programs)

# Tests of the guest's parts link them built like the rest of the tests, sanitizers included.
$(filter $(obj)/tests/unit/$(guest-dir)/%,$(call test-programs-of,$(VARIANT),$(test-sources))): \
    $(guest-objects)

-include $(shell find $(guest-obj) -name '*.d' 2>/dev/null)
