# SPDX-License-Identifier: Apache-2.0
# packages.mk - the Debian packages the project needs, and the goal that installs them
#
# Output: goal `depend`. Only what is missing is installed, with sudo when not root; where no udev and systemd
# run, what they do for FUSE is done as well.

# To build.
PACKAGES_BUILD := gcc make pkg-config libc6-dev linux-libc-dev libarchive-dev libcurl4-openssl-dev \
    libssl-dev libjson-c-dev libext2fs-dev libzstd-dev liblz4-dev liblzma-dev zlib1g-dev libisal-dev \
    libfuse3-dev libnftables-dev libmnl-dev musl-tools

# To make images, blueprints and machines.
PACKAGES_RUN := skopeo umoci mmdebstrap ca-certificates qemu-system-x86 fuse3 e2fsprogs jq cpio

# To test.
PACKAGES_TEST := check libsubunit-dev clang libclang-rt-14-dev attr libcap2-bin procps iproute2 nftables iptables socat \
    docker-registry redis-tools util-linux busybox-static time mandoc spin flex bison bc libelf-dev xz-utils zstd

# To compare with (`make bench`).
PACKAGES_BENCH := nbdkit libnbd-bin util-linux-extra

# To lint (`make lint` installs them on its own).
PACKAGES_LINT := clang-tidy clang-format cppcheck

# To build a kernel (OS_KERNEL=source), which few do.
PACKAGES_KERNEL := gcc make libc6-dev flex bison bc libelf-dev xz-utils binutils

#: depend - install the Debian packages the project needs (only what is missing; sudo when not root)
.PHONY: depend
depend:
	@tools/install-packages.sh $(sort $(PACKAGES_BUILD) $(PACKAGES_RUN) $(PACKAGES_TEST) $(PACKAGES_BENCH))
	@tools/prepare-fuse.sh
#: depend/kernel - install what OS_KERNEL=source needs beside
.PHONY: depend/kernel
depend/kernel:
	@tools/install-packages.sh $(sort $(PACKAGES_KERNEL))
