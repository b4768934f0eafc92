# SPDX-License-Identifier: Apache-2.0
# lint.mk - static checks
#
# Output: goals lint, format.

lint-sources = $(shell git ls-files '*.c' 2>/dev/null || find . -name '*.c' -not -path './$(OUTPUT_DIR)/*')
lint-headers = $(shell git ls-files '*.h' 2>/dev/null || find . -name '*.h' -not -path './$(OUTPUT_DIR)/*')

# What cppcheck cannot see: __attribute__((cleanup)) frees and closes, and readdir(3) of glibc is safe
# on streams that are not shared; its table of mmap(2) forbids the -1 of anonymous mappings; symbols of
# the linker are objects to it.
cppcheck-blind := --suppress=memleak --suppress=resourceLeak --suppress=readdirCalled \
    --suppress=invalidFunctionArg --suppress=comparePointers

#: lint - clang-format, clang-tidy and cppcheck, all clean or it fails
#: format - lay out all C files with clang-format
.PHONY: lint format
lint: $(flags)
	@tools/install-packages.sh $(PACKAGES_LINT)
	$(call say,FORMAT,check)
	$(Q)clang-format --dry-run --Werror $(lint-sources) $(lint-headers)
	$(call say,TIDY,clang-tidy)
	$(Q)printf '%s\n' $(lint-sources) | xargs -P $$(nproc) -n 2 sh -c \
	    'clang-tidy --quiet "$$@" -- -Iruntime "-DDRAFTER_VERSION=\"$(VERSION)\"" $$(tr "\n" " " <$(flags) | sed "s/-DDRAFTER_VERSION=[^ ]*//; s/-fstack-clash-protection//; s/-D_FORTIFY_SOURCE=2//") 2>&1 | \
	    { ! grep -vE "warnings? generated|^Suppressed|^Use -header"; }' _
	$(call say,CPPCHECK,cppcheck)
	$(Q)cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability \
	    --inline-suppr --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches \
	    $(cppcheck-blind) \
	    --library=posix -D_GNU_SOURCE -D__x86_64__ -I. -j $$(nproc) $(lint-sources)
format:
	$(Q)clang-format -i $(lint-sources) $(lint-headers)
