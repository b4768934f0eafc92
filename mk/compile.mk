# SPDX-License-Identifier: Apache-2.0
# compile.mk - sources to objects, archives and programs
#
# Input: MODULES, deps-*, pkgs-* (deps.mk); flags (toolchain.mk).
# Output: goal `all`; lists `programs`, `archives`; functions `objects`, `module-libs`, `pkg-libs`.
#
# Sources are found, not listed: every .c below a module's folder belongs to it, every .c directly in
# tools/ and every runtime/drafter-*.c is a program, built beside its source. Objects live in
# out/obj/VARIANT; a change of any flag rewrites the response file below, on which all objects
# depend.

obj := $(OUTPUT_DIR)/obj/$(VARIANT)

# Two levels of subfolders are as deep as modules go. blueprint/guest is for the guest, see there.
sources = $(filter-out blueprint/guest/%,$(sort $(wildcard $1/*.c $1/*/*.c)))
objects = $(patsubst %.c,$(obj)/%.o,$1)

modules := $(foreach m,$(MODULES),$(if $(call sources,$m),$m))

# closure: a module and all it may see, highest first (a linker wants them so).
closure = $(call reverse,$(call uniq,$(foreach d,$(deps-$1),$(call closure-up,$d)) $1))
closure-up = $(foreach d,$(deps-$1),$(call closure-up,$d)) $1
uniq = $(if $1,$(call uniq,$(filter-out $(lastword $1),$(filter-out $(lastword $1),$1))) $(lastword $1))
reverse = $(if $1,$(call reverse,$(wordlist 2,$(words $1),$1)) $(firstword $1))
archive = $(obj)/$(subst /,-,$1).a
module-libs = $(foreach m,$(filter $(modules),$1),$(call archive,$m))
pkg-names = $(sort $(foreach m,$(filter $(modules),$1),$(pkgs-$m)))

all-pkgs := $(call pkg-names,$(modules))
archives := $(call module-libs,$(modules))

# The module a source file belongs to, for the layer check; programs and tests see their deps.
module-of = $(firstword $(foreach m,$(MODULES),$(if $(filter $m/%,$1),$m)))

program-sources := $(wildcard tools/*.c runtime/drafter-*.c)
programs := $(if $(filter release,$(VARIANT)),,$(obj)/bin/)
programs := $(addprefix $(programs),$(program-sources:.c=))
program-deps = $(or $(deps-$1),$(deps-$(firstword $(subst /, ,$1))))

#: all - build every program (the default)
.PHONY: all
all: $(programs)

# Two makes at once may look at the response file: each writes one of its own.
# pkg-config runs when the response file is made, not when make starts: `make depend all` installs it.
flags := $(obj)/cflags.rsp
.PHONY: FORCE
FORCE:
$(flags): FORCE $(if $(filter depend,$(MAKECMDGOALS)),depend)
	@mkdir -p $(@D)
	@command -v pkg-config >/dev/null && command -v $(CC) >/dev/null || \
	    { echo "make: $(CC) or pkg-config is missing: run 'make depend' first" >&2; exit 1; }
	@inc=$$(pkg-config --cflags $(all-pkgs)) || { echo "make: run 'make depend' first" >&2; exit 1; }; \
	new=$@.$$$$; printf '%s\n' $(call shell-quote,$(project-cflags)) "$$inc" >$$new; \
	cmp -s $$new $@ && rm $$new || mv $$new $@
# A response file has quoting rules of its own: the backslash keeps the quotes of -DX='"text"'.
shell-quote = '$(subst ','\'',$(subst '"','\"',$(subst "',\"',$1)))'

# check-layers FILE: a source may include only what its module may see.
layer-allowed = $(if $(call module-of,$1),$(call closure,$(call module-of,$1)),$(MODULES) tests/lib tests/guest) \
    $(if $(filter runtime/lib/% tests/unit/runtime/lib/%,$1),runtime)
check-layers = awk -v src='$1' -v allowed='$(call layer-allowed,$1)' -f mk/check-layers.awk

$(obj)/%.o: %.c $(flags)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) @$(flags) $(cflags-$<) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
	@$(call check-layers,$<) $(@:.o=.d) || { rm -f $@; exit 1; }

define archive-rule
$(call archive,$1): $(call objects,$(call sources,$1))
endef
$(foreach m,$(modules),$(eval $(call archive-rule,$m)))
$(archives):
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcsD $@ $^

# $(call link,OUTPUT,OBJECTS AND ARCHIVES,MODULES)
link = $(CC) $(project-ldflags) -o $1 $2 -Wl,--start-group $(call module-libs,$3) -Wl,--end-group \
    $$(pkg-config --libs $(or $(call pkg-names,$3),json-c))

define program-rule
$(filter %/$1 $1,$(programs)): $(obj)/$1.o $(call module-libs,$(call closure-of,$(call program-deps,$1)))
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(call link,$$@,$(obj)/$1.o,$(call closure-of,$(call program-deps,$1)))
endef
closure-of = $(call uniq,$(foreach d,$1,$(call closure,$d)))
$(foreach p,$(program-sources:.c=),$(eval $(call program-rule,$p)))

-include $(shell find $(obj) -name '*.d' 2>/dev/null)

#: clean - remove what was built; what was produced (images, blueprints) stays
#: distclean - remove everything make ever made
.PHONY: clean distclean
clean:
	rm -rf $(OUTPUT_DIR)/obj $(OUTPUT_DIR)/tests $(OUTPUT_DIR)/man $(program-sources:.c=)
distclean: clean
	rm -rf $(OUTPUT_DIR)
