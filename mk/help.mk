# SPDX-License-Identifier: Apache-2.0
# help.mk - `make help`, made from the "#:" and "#?" lines of the other fragments

#: help - list goals and variables
.PHONY: help
help:
	@echo 'Goals:'; awk -F ' - ' '/^#: /{sub(/^#: /,""); printf "  %-18s %s\n",$$1,substr($$0,length($$1)+4)}' $(MAKEFILE_LIST)
	@echo; echo 'Variables (make NAME=value):'; awk -F ': ' '/^#\? /{sub(/^#\? /,""); printf "  %-18s %s\n",$$1,substr($$0,length($$1)+3)}' $(MAKEFILE_LIST)
