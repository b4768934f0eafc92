# SPDX-License-Identifier: Apache-2.0
# blueprint.mk - a kernel, a guest system and an image become out/blueprint
#
# Input: OS_*, KERNEL_* (config.mk), tools, guest programs (guest/guest.mk).
# Output: goals config/kernel, build/kernel, build/os, blueprint, clean/kernel, clean/os, clean/blueprint.
#
#   OS_KERNEL -> out/kernel/{vmlinux,initrd.img,made.txt} --+
#   OS_PACKAGES -> out/os/base.tar --+                       +-> out/blueprint/*, blueprint.json last
#   overlays    -> out/os/*.tar -----+-> out/os/rootfs.ext4 -+
#   image       -> out/blueprint/oci.ext4 -------------------+
#
# What a stage was made of, as far as it is no file, stands in its .inputs file, which changes only
# when one of the variables did.

kernel-out := $(OUTPUT_DIR)/kernel
os-out := $(OUTPUT_DIR)/os
blueprint-out := $(OUTPUT_DIR)/blueprint
cache-out := $(OUTPUT_DIR)/cache
own-guest := $(OUTPUT_DIR)/obj/guest

# $(call inputs,FILE,WORDS): a rule for a file that holds the words.
define inputs
$1: FORCE
	@mkdir -p $$(@D)
	@printf '%s\n' $(call shell-quote-word,$2) >$$@.tmp; cmp -s $$@.tmp $$@ && rm $$@.tmp || mv $$@.tmp $$@
endef
shell-quote-word = '$(subst ','\'',$1)'

# Guest programs of this folder, linked alone: the first program of a machine, and what starts the bundle.
own-programs := $(own-guest)/init $(own-guest)/drafter-start
$(own-guest)/init: $(own-guest)/blueprint/guest/initrd/init.o
$(own-guest)/drafter-start: $(own-guest)/blueprint/guest/start/start.o
$(own-programs):
	$(call say,GUESTLD,$@)
	$(Q)$(GUEST_CC) -static -s -Wl,--gc-sections -o $@ $^
all: $(own-programs)

#: config/kernel - with OS_KERNEL=source: source and configuration of the kernel, in out/linux
#: build/kernel - vmlinux and initrd.img of OS_KERNEL, in out/kernel
.PHONY: config/kernel build/kernel build/os blueprint clean/kernel clean/os clean/blueprint
build/kernel: $(kernel-out)/made.txt
linux-out := $(OUTPUT_DIR)/linux
kernel-fragments := blueprint/kernel/$(shell uname -m).config $(KERNEL_CONFIG)
$(eval $(call inputs,$(linux-out).inputs,$(kernel-fragments)))
$(linux-out)/config: $(linux-out).inputs blueprint/kernel/build-source.sh $(kernel-fragments)
	$(call say,CONFIG,$@)
	$(Q)blueprint/kernel/build-source.sh config $(linux-out) $(cache-out) linux-source $(kernel-fragments)
$(linux-out)/vmlinux: $(linux-out)/config
	$(call say,LINUX,$@)
	$(Q)blueprint/kernel/build-source.sh build $(linux-out) $(cache-out)
ifeq ($(OS_KERNEL),source)
config/kernel: $(linux-out)/config
kernel-given := $(linux-out)/vmlinux
else
config/kernel:
	@echo 'make: $@: OS_KERNEL=$(OS_KERNEL) comes configured; OS_KERNEL=source builds one' >&2; exit 1
kernel-given := $(OS_KERNEL)
endif
$(eval $(call inputs,$(kernel-out).inputs,$(OS_KERNEL) $(KERNEL_MODULES)))
$(kernel-out)/made.txt: $(kernel-out).inputs $(own-guest)/init tools/kernel-extract tools/initrd-make \
    $(wildcard blueprint/kernel/*.sh) $(if $(findstring /,$(kernel-given)),$(kernel-given))
	$(call say,KERNEL,$(OS_KERNEL))
	$(Q)blueprint/kernel/make-kernel.sh $(kernel-out) $(cache-out) '$(kernel-given)' $(own-guest)/init $(KERNEL_MODULES)

# The layers of the root, lowest first. Folders are packed anew each time and replace the old tar only
# when something in them changed.
os-kind := $(if $(OS_ROOTFS),GUEST,OWN)
os-image := $(filter %.ext4 %.img,$(OS_ROOTFS))
os-base := $(if $(OS_ROOTFS),$(if $(wildcard $(OS_ROOTFS)/.),$(os-out)/given.tar,$(OS_ROOTFS)),$(os-out)/base.tar)
os-layers := $(os-base) $(os-out)/guest.tar $(if $(OS_OVERLAY),$(os-out)/overlay.tar)

$(eval $(call inputs,$(os-out)/base.inputs,$(OS_PACKAGES) $(OS_SUITE) $(OS_MIRROR)))
$(eval $(call inputs,$(os-out)/rootfs.inputs,$(OS_ROOTFS) $(OS_SIZE) $(OS_FREE) $(OS_OVERLAY) $(filter init=%,$(KERNEL_ARGS))))
$(os-out)/base.tar: $(os-out)/base.inputs blueprint/rootfs/make-tar.sh blueprint/rootfs/unpack-packages.sh
	$(call say,PACKAGES,crun busybox-static $(OS_PACKAGES))
	$(Q)OS_SUITE='$(OS_SUITE)' OS_MIRROR='$(OS_MIRROR)' blueprint/rootfs/make-tar.sh $@ $(cache-out) crun busybox-static $(OS_PACKAGES)
$(os-out)/guest.tar: $(if $(OS_ROOTFS),,$(os-base)) $(os-out)/rootfs.inputs blueprint/rootfs/make-overlay.sh \
    $(shell find blueprint/rootfs/overlay blueprint/guest/systemd ! -type d) \
    blueprint/guest/drafter-agent blueprint/guest/drafter-liveness $(own-guest)/drafter-start
	$(Q)blueprint/rootfs/make-overlay.sh $@ $(os-kind) '$(os-base)' $(filter blueprint/guest/drafter-%,$^) \
	    $(if $(OS_ROOTFS),,$(own-guest)/drafter-start)
pack-folder = mkdir -p $(@D) && tar -C '$1' --sort=name --numeric-owner --format=posix --xattrs \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime $2 -cf $@.tmp . && \
    { cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@; }
$(os-out)/given.tar: FORCE
	$(Q)$(call pack-folder,$(OS_ROOTFS))
$(os-out)/overlay.tar: FORCE
	$(Q)$(call pack-folder,$(OS_OVERLAY),--owner=0 --group=0)

#: build/os - the root file system of OS_ROOTFS or our own, in out/os
build/os: $(os-out)/rootfs.ext4
os-init = $(or $(patsubst init=%,%,$(filter init=%,$(KERNEL_ARGS))),/sbin/init)
$(os-out)/rootfs.ext4: $(os-out)/rootfs.inputs $(if $(os-image),$(os-image) tools/rootfs-check,$(os-layers) tools/rootfs-pack)
	$(call say,ROOTFS,$@)
	$(Q)$(if $(os-image),tools/rootfs-check --init '$(os-init)' $(os-image) && cp --sparse=always $(os-image) $@.tmp && mv $@.tmp $@,\
	    tools/rootfs-pack --output $@ --size '$(OS_SIZE)' --free '$(OS_FREE)' --init '$(os-init)' $(os-layers))

oci-device := $(if $(OCI_IMAGE_URI),$(blueprint-out)/oci.ext4)
# The digest of the image's manifest, as its layout tells it.
oci-digest = jq -r --arg ref '$(word 2,$(subst :, ,$(oci-image)))' '[.manifests[] | \
    select($$ref == "" or .annotations."org.opencontainers.image.ref.name" == $$ref)][0].digest // empty' $(oci-layout)/index.json
# Its parts do not wait for each other, unless the caller said how many jobs there shall be.
ifeq ($(MAKELEVEL) $(MAKECMDGOALS),0 blueprint)
MAKEFLAGS += -j$(shell nproc)
endif
#: blueprint - everything a machine starts from, in out/blueprint
blueprint: $(blueprint-out)/blueprint.json
boot-args := console=ttyS0 panic=1 reboot=t root=/dev/vda rootfstype=ext4 rw net.ifnames=0 tsc=unstable \
    lapic=notscdeadline i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd printk.devkmsg=on
$(eval $(call inputs,$(blueprint-out).inputs,$(KERNEL_ARGS) $(boot-args) $(OS_DISKS)))
$(blueprint-out)/blueprint.json: $(blueprint-out).inputs $(kernel-out)/made.txt $(os-out)/rootfs.ext4 \
    $(oci-device) $(foreach d,$(OS_DISKS),$(lastword $(subst =, ,$d))) tools/blueprint-make
	$(call say,BLUEPRINT,$(@D))
	$(Q)tools/blueprint-make --output $(@D) --boot-args '$(strip $(boot-args) $(KERNEL_ARGS))' \
	    --device kernel=$(kernel-out)/vmlinux \
	    $$([ ! -e $(kernel-out)/initrd.img ] || echo --device initrd=$(kernel-out)/initrd.img) \
	    --device disk=$(os-out)/rootfs.ext4 \
	    $(addprefix --device oci=,$(oci-device)) $(addprefix --device ,$(OS_DISKS)) \
	    --made-kernel "$$(cat $(kernel-out)/made.txt)" \
	    $(if $(oci-device),$(if $(oci-kept),--image-reference "$$(cat '$(oci-packed-of)')",\
	        --image-reference '$(OCI_IMAGE_URI)' --image-digest "$$($(oci-digest))")) \
	    --made-root '$(if $(OS_ROOTFS),$(notdir $(OS_ROOTFS)),Debian $(OS_SUITE): crun busybox-static $(OS_PACKAGES))'

# The oci stage decides by content whether there is something to do, and leaves the file alone if not. What pack/oci
# left is taken as it is (oci.mk).
$(blueprint-out)/oci.ext4: $(if $(oci-kept),oci-kept,build/oci) ;

#: clean/kernel, clean/os, clean/blueprint - remove what the goal of that name made (packages stay in out/cache)
clean/kernel:
	rm -rf $(kernel-out) $(kernel-out).inputs $(linux-out) $(linux-out).inputs
clean/os:
	rm -rf $(os-out)
clean/blueprint:
	rm -rf $(blueprint-out) $(blueprint-out).inputs

# tests/bench/boot.sh and peer.sh boot what stands there.
bench/boot bench/peer: blueprint
