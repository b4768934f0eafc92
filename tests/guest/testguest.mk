# SPDX-License-Identifier: Apache-2.0
# testguest.mk - the freestanding guest that the tests of VMMs run
#
# Input: CC, Q, say. Output: tests/guest/testguest, made before any test runs, or a benchmark that boots it.

testguest := tests/guest/testguest
testguest-obj := $(OUTPUT_DIR)/obj/testguest
testguest-cflags := -std=gnu17 -O2 -g -I. $(warnings) -ffreestanding -mgeneral-regs-only \
    -mno-red-zone -mcmodel=small -fno-pic -fno-pie -fno-stack-protector -fcf-protection=none \
    -fno-asynchronous-unwind-tables -fno-builtin -MMD -MP

$(testguest-obj)/%.o: tests/guest/%.c tests/guest/testguest.mk
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(testguest-cflags) -c -o $@ $<
$(testguest-obj)/%.o: tests/guest/%.S tests/guest/testguest.mk
	$(call say,AS,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(testguest-cflags) -c -o $@ $<
$(testguest): $(testguest-obj)/start.o $(testguest-obj)/testguest.o tests/guest/testguest.ld
	$(call say,LD,$@)
	$(Q)$(CC) -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,max-page-size=4096 \
	    -Wl,--no-warn-rwx-segments -T tests/guest/testguest.ld -o $@ $(filter %.o,$^)

test-programs check check/unit check/e2e bench/migrate bench/peer bench/runtime: $(testguest)
clean: testguest-clean
.PHONY: testguest-clean
testguest-clean:
	rm -f $(testguest)

-include $(wildcard $(testguest-obj)/*.d)
