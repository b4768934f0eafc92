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
#? OCI_IMAGE_URI: the image, anything skopeo knows: docker://HOST/NAME:TAG, oci:FOLDER:TAG, docker-archive:FILE, ...
OCI_IMAGE_URI ?= oci:$(OUTPUT_DIR)/images/redis:latest
#? OCI_IMAGE_ARCHITECTURE: which of the image's platforms (Go's names: amd64, arm64/v8)
OCI_IMAGE_ARCHITECTURE ?= amd64
#? OCI_IMAGE_HOSTNAME: host name inside the container
OCI_IMAGE_HOSTNAME ?= drafterguest
#? OCI_UNPACKER: drafter or umoci: what `make unpack/oci` unpacks with
OCI_UNPACKER ?= drafter
#? OCI_FREE: room on oci.ext4 for what the container writes (sparse: costs nothing until used)
OCI_FREE ?= 256M
#? OCI_MAX_BYTES: how much an image's layers may unpack to, together ("64G"); empty here and below = the program's default
OCI_MAX_BYTES ?=
#? OCI_MAX_RATIO: unpacked to packed bytes of a layer, at most (for what is over 64 MiB)
OCI_MAX_RATIO ?=
#? OCI_MAX_ENTRIES: entries of all layers together, at most
OCI_MAX_ENTRIES ?=
#? OCI_MAX_FILE_SIZE: size of one file, holes included, at most
OCI_MAX_FILE_SIZE ?=
#? OCI_MAX_METADATA: memory for names, attributes and extents, at most
OCI_MAX_METADATA ?=
#? OCI_UNPACK_FLAGS, OCI_PACK_FLAGS: further options of oci-unpack and oci-pack, both for oci-build
OCI_UNPACK_FLAGS ?=
OCI_PACK_FLAGS ?=
#? SKOPEO_FLAGS: further options of `skopeo copy`, as in --src-creds=USER:PASSWORD or --src-tls-verify=false
SKOPEO_FLAGS ?=
#? SOURCE_DATE_EPOCH: seconds since 1970 for times that an image does not give (default: the image's own)
$(if $(SOURCE_DATE_EPOCH),$(eval export SOURCE_DATE_EPOCH))
#? TESTS: words that select tests by name for `make check` (default: all)
TESTS ?=
#? FUZZ_SECONDS: how long each fuzzer runs at most within `make fuzz` and `make check`
FUZZ_SECONDS ?= 5
#? FIRECRACKER_BIN, JAILER_BIN: the Firecracker to test with; without it those tests are skipped
FIRECRACKER_BIN ?=
JAILER_BIN ?=
export FIRECRACKER_BIN JAILER_BIN

#? OS_KERNEL: kernel of a blueprint: a vmlinux, a vmlinuz, the name of a Debian kernel package, or "source"
OS_KERNEL ?= linux-image-cloud-amd64
#? KERNEL_CONFIG: files of further options for OS_KERNEL=source, as lines of a kernel's .config
KERNEL_CONFIG ?=
#? KERNEL_JOBS: how many jobs build OS_KERNEL=source (default: one for each processor)
#? KERNEL_ARGS: added to the boot arguments of a blueprint
KERNEL_ARGS ?= quiet
#? KERNEL_MODULES: drivers the initrd loads, with what they depend on; NAME? = where the kernel has it
KERNEL_MODULES ?= virtio_pci virtio_mmio virtio_blk virtio_net vmw_vsock_virtio_transport virtio_rng?
#? OS_ROOTFS: root file system of a blueprint: a tar, a folder, an ext4 image (.ext4, .img); empty = our own system
OS_ROOTFS ?=
#? OS_PACKAGES: Debian packages unpacked into our own system
OS_PACKAGES ?=
#? OS_OVERLAY: folder whose files are laid over the root file system, as root's
OS_OVERLAY ?=
#? OS_SIZE, OS_FREE: size of the root file system ("1G"); auto = what it holds and OS_FREE
OS_SIZE ?= auto
OS_FREE ?= 16M
#? OS_DISKS: further disks of a blueprint, as NAME=FILE, separated by blanks; the guest sees them after the others
OS_DISKS ?=
#? OS_SUITE, OS_MIRROR: Debian release of our own system, and where apt gets it (default: the host's sources, or mmdebstrap's)
OS_SUITE ?= bookworm
OS_MIRROR ?=

VERSION := 0.1.0
VERSION_DATE := 2026-11-23
