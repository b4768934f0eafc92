# SPDX-License-Identifier: Apache-2.0
# test.mk - building and running the tests
#
# Input: objects and link from compile.mk; TESTS, FUZZ_SECONDS.
# Output: goals check, check/unit, check/e2e, sanitize, fuzz.
#
# Tests are found, not listed: every test_*.c below tests/ is a libcheck program, every *.sh directly
# in tests/{model,golden,should-fail,stage,e2e,lab} and every examples/*/test.sh a TAP script, every
# fuzz_*.c in tests/fuzz a libFuzzer target with a corpus in tests/fuzz/corpus/NAME. A C test whose
# first 20 lines say "threads: yes" is also run under TSan.

test-bin := $(obj)/tests
test-sources := $(sort $(shell find tests -name 'test_*.c' 2>/dev/null))
thread-sources := $(sort $(foreach t,$(test-sources),$(shell sed -n '1,20{/threads: yes/p}' $t | sed 's|.*|$t|')))
fuzz-sources := $(sort $(wildcard tests/fuzz/fuzz_*.c))
test-scripts := $(sort $(wildcard tests/model/*.sh tests/golden/*.sh tests/should-fail/*.sh tests/stage/*.sh))
e2e-scripts := $(sort $(wildcard tests/e2e/*.sh) $(filter-out %/lib.sh,$(wildcard tests/lab/*.sh))) \
    $(sort $(wildcard examples/*/test.sh))

test-lib := $(obj)/tests/lib/unit_main.o $(filter-out %/unit_main.o,$(call objects,$(wildcard tests/lib/*.c)))
test-programs-of = $(patsubst %.c,$(OUTPUT_DIR)/obj/$1/%,$2)
selected = $(if $(TESTS),$(foreach t,$1,$(if $(strip $(foreach w,$(TESTS),$(findstring $w,$t))),$t)),$1)

$(test-sources:%.c=$(obj)/%): $(obj)/%: $(obj)/%.o $(test-lib) $(archives)
	$(call say,LD,$@)
	$(Q)$(call link,$@,$(filter %.o,$^),$(modules)) $$(pkg-config --libs check)

fuzzers := $(patsubst tests/fuzz/%.c,$(obj)/tests/fuzz/%,$(fuzz-sources))
$(fuzzers): $(obj)/%: $(obj)/%.o $(archives)
	$(call say,LD,$@)
	$(Q)$(call link,$@,$<,$(modules)) -fsanitize=fuzzer

# Goals for one VARIANT; the goals below call make with each.
.PHONY: test-programs thread-programs fuzz-programs
test-programs: $(call test-programs-of,$(VARIANT),$(call selected,$(test-sources)))
thread-programs: $(call test-programs-of,$(VARIANT),$(call selected,$(thread-sources)))
fuzz-programs: $(call selected,$(fuzzers))

run-tests = V=$(V) tests/lib/run.sh $(OUTPUT_DIR)/tests
# All processors, unless the caller said how many.
jobs = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
variant = +@$(MAKE) --no-print-directory $(jobs) VARIANT=$1 $2
# Sanitizers report and stop; a race detector wants a fixed address layout.
export ASAN_OPTIONS := detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS := print_stacktrace=1
export TSAN_OPTIONS := halt_on_error=1:second_deadlock_stack=1

tests-release = $(call test-programs-of,release,$(call selected,$(test-sources)))
tests-asan = $(call test-programs-of,asan,$(call selected,$(test-sources)))
tests-tsan = $(call test-programs-of,tsan,$(call selected,$(thread-sources)))
tests-fuzz = $(if $(call selected,$(fuzz-sources)),tests/lib/fuzz.sh)

#: check - build and run all tests: C tests plain and under sanitizers, fuzzers for a bounded time, scripts, end to end
.PHONY: check check/unit check/e2e sanitize fuzz
check:
	$(call variant,release,all)
	$(call variant,release,test-programs)
	$(call variant,asan,test-programs)
	$(call variant,tsan,thread-programs)
	$(call variant,fuzz,fuzz-programs)
	+$(Q)FUZZERS='$(foreach f,$(call selected,$(fuzz-sources)),$(OUTPUT_DIR)/obj/fuzz/$(f:.c=))' \
	    FUZZ_SECONDS=$(FUZZ_SECONDS) $(run-tests) $(tests-release) $(tests-asan) $(tests-tsan) \
	    $(tests-fuzz) $(call selected,$(test-scripts)) $(call selected,$(e2e-scripts))
#: check/unit - C tests only, plain
check/unit:
	$(call variant,release,all)
	$(call variant,release,test-programs)
	$(Q)$(run-tests) $(tests-release)
#: check/e2e - end-to-end scripts only
check/e2e:
	$(call variant,release,all)
	$(Q)$(run-tests) $(call selected,$(e2e-scripts))
#: sanitize - C tests under ASan and UBSan, those with threads under TSan too
sanitize:
	$(call variant,asan,test-programs)
	$(call variant,tsan,thread-programs)
	$(Q)$(run-tests) $(tests-asan) $(tests-tsan)
#: fuzz - each fuzzer for FUZZ_SECONDS, under ASan and UBSan
fuzz:
	$(call variant,fuzz,fuzz-programs)
	$(Q)FUZZERS='$(foreach f,$(call selected,$(fuzz-sources)),$(OUTPUT_DIR)/obj/fuzz/$(f:.c=))' \
	    FUZZ_SECONDS=$(FUZZ_SECONDS) $(run-tests) $(tests-fuzz)
