# SPDX-License-Identifier: Apache-2.0
# bench.mk - figures, each a ratio against the alternative in the same run
#
# Input: tests/bench/NAME.sh (found). Output: goals bench, bench/NAME. A missed figure is a failure.
# Run them as root, on a machine that does nothing else. What a benchmark boots is built first: blueprint.mk and
# testguest.mk say which.

benches := $(patsubst tests/bench/%.sh,bench/%,$(filter-out %/lib.sh,$(sort $(wildcard tests/bench/*.sh))))

#: bench - all benchmarks, as root (bench/oci and so on, one by one)
.PHONY: bench $(benches)
bench: $(benches)
$(benches): bench/%: all
	+$(Q)OUTPUT_DIR='$(OUTPUT_DIR)' bash tests/bench/$*.sh
