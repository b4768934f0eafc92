# SPDX-License-Identifier: Apache-2.0
# config.mk - every public variable, its default and what it is for
#
# Output: all variables below. Set them on the command line (make OUTPUT_DIR=/tmp/x) or in the
# environment. Lines "#? NAME: text" are what `make help` prints.

#? OUTPUT_DIR: folder for everything that is built or produced
OUTPUT_DIR ?= out
#? V: 1 shows the commands that run
V ?= 0
#? WERROR: 1 makes compiler warnings errors (as CI does)
WERROR ?= $(if $(CI),1,0)
#? VARIANT: release, asan (with UBSan), tsan or fuzz; each has objects of its own
VARIANT ?= release
#? PREFIX, DESTDIR: where `make install` puts things
PREFIX ?= /usr/local
DESTDIR ?=
#? CFLAGS, LDFLAGS: added to the project's own flags
CFLAGS ?= -O2 -g
LDFLAGS ?=
#? TESTS: words that select tests by name for `make check` (default: all)
TESTS ?=
#? FUZZ_SECONDS: how long each fuzzer runs at most within `make fuzz` and `make check`
FUZZ_SECONDS ?= 5
#? FIRECRACKER_BIN, JAILER_BIN: the Firecracker to test with; without it those tests are skipped
FIRECRACKER_BIN ?=
JAILER_BIN ?=
export FIRECRACKER_BIN JAILER_BIN

VERSION := 0.1.0
