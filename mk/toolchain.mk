# SPDX-License-Identifier: Apache-2.0
# toolchain.mk - compilers, flags and how commands are shown
#
# Input: VARIANT, CFLAGS, LDFLAGS, WERROR, V.
# Output: CC, Q, say, project-cflags, project-ldflags.
#
# Nothing here asks the machine anything while make reads it, so that `make depend all` works in one
# call on a machine where depend has still to install the compiler.

comma := ,

ifeq ($(origin CC),default)
CC := $(if $(filter fuzz,$(VARIANT)),clang,gcc)
endif
AR ?= ar

Q := $(if $(filter 1,$(V)),,@)
# $(call say,WHAT,OBJECT): a line a step, silent under V=1.
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' '$1' '$2')

warnings := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef \
    -Wpointer-arith -Wwrite-strings -Wformat=2 -Wimplicit-fallthrough -Wno-format-nonliteral \
    $(if $(filter 1,$(WERROR)),-Werror)

hardening := -fstack-protector-strong -fstack-clash-protection -fPIC -fvisibility=hidden
ifeq ($(VARIANT),release)
hardening += -D_FORTIFY_SOURCE=2
endif

variant-cflags-release := -ffunction-sections -fdata-sections
variant-cflags-asan := -fsanitize=address,undefined -fno-sanitize-recover=all \
    -fno-omit-frame-pointer
variant-cflags-tsan := -fsanitize=thread -fno-omit-frame-pointer
variant-cflags-fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
    -fno-omit-frame-pointer -DFUZZING

ifeq ($(filter $(VARIANT),release asan tsan fuzz),)
$(error VARIANT=$(VARIANT): is none of release, asan, tsan, fuzz)
endif

project-cflags := -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -pthread -I. \
    -DDRAFTER_VERSION='"$(VERSION)"' $(warnings) $(hardening) $(variant-cflags-$(VARIANT)) $(CFLAGS)
project-ldflags := -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread \
    $(if $(filter release,$(VARIANT)),-Wl$(comma)--gc-sections) \
    $(filter -fsanitize=%,$(subst fuzzer-no-link$(comma),,$(variant-cflags-$(VARIANT)))) $(LDFLAGS)
