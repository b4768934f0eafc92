# SPDX-License-Identifier: Apache-2.0
# deps.mk - the modules, the layer graph between them, and the libraries each one needs
#
# Output: MODULES, deps-MODULE, pkgs-MODULE; deps-PROGRAM where a program is not served by its
# folder's default.
#
# A module is a folder with its subfolders. Its files may include headers of the module itself, of
# the modules in its deps line, and of theirs; compile.mk refuses anything else. Lowest first.

MODULES := runtime/base

deps-runtime/base :=
pkgs-runtime/base := json-c libcrypto

# runtime: the bottom of the machine's parts
MODULES += runtime/wire runtime/transport runtime/block runtime/net
deps-runtime/wire := runtime/base
pkgs-runtime/wire := libisal
deps-runtime/transport := runtime/base
pkgs-runtime/transport := libssl libcrypto
deps-runtime/block := runtime/base
pkgs-runtime/block := fuse3 libzstd
deps-runtime/net := runtime/base
pkgs-runtime/net := libnftables libmnl

# oci: from an image to a file system
MODULES += oci/tree oci/image oci/layer oci/bundle oci/assemble oci/ext4
deps-oci/tree := runtime/base
deps-oci/image := runtime/base
deps-oci/layer := oci/image oci/tree
pkgs-oci/layer := libisal libzstd
deps-oci/bundle := oci/image oci/tree
deps-oci/assemble := oci/layer oci/bundle
deps-oci/ext4 := oci/tree
pkgs-oci/ext4 := ext2fs com_err

# blueprint: the vocabulary of a machine that has not been started
# (blueprint/guest first: a file belongs to the first module that fits.)
MODULES += blueprint/guest blueprint
deps-blueprint/guest := runtime/wire runtime/net
deps-blueprint := runtime/base
pkgs-blueprint := libarchive libzstd liblzma liblz4 zlib

# runtime: a machine in one's hands, and the acts
MODULES += runtime/memory runtime/vsock runtime/guestlink runtime/vmm
deps-runtime/memory := runtime/block
deps-runtime/vsock := runtime/block
deps-runtime/guestlink := runtime/wire
deps-runtime/vmm := runtime/memory runtime/vsock runtime/guestlink
pkgs-runtime/vmm := libcurl
MODULES += runtime/snapshot runtime/migrate runtime/peer
deps-runtime/snapshot := runtime/vmm runtime/net blueprint
deps-runtime/migrate := runtime/block runtime/wire runtime/transport
pkgs-runtime/migrate := libzstd
deps-runtime/peer := runtime/snapshot runtime/migrate
MODULES += runtime/lib
deps-runtime/lib := runtime/peer

# Programs: what a main may see. The first two lines are the defaults of their folders.
deps-tools := oci/assemble oci/ext4 blueprint
deps-runtime := runtime/peer
deps-tools/blockstack := runtime/block
deps-tools/plot-migration := runtime/base
deps-tools/vsockhost := runtime/vsock
deps-tools/vmmctl := runtime/vmm
deps-tools/guestctl := runtime/guestlink
deps-runtime/drafter-mounter := runtime/snapshot
