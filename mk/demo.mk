# SPDX-License-Identifier: Apache-2.0
# demo.mk - the whole way in one command
#
# Input: OUTPUT_DIR and the variables of the blueprint (OCI_IMAGE_URI and others).
# Output: goal demo.

#: demo - install what is missing, build everything, make a redis machine, resume it twice and move one under load
.PHONY: demo
demo:
	+@$(MAKE) --no-print-directory depend
	+@$(MAKE) --no-print-directory $(jobs) all
	+@$(MAKE) --no-print-directory $(jobs) build/oci blueprint
	@tools/demo.sh '$(OUTPUT_DIR)'
