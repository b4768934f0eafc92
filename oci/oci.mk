# SPDX-License-Identifier: Apache-2.0
# oci.mk - from an image to a bundle to ext4
#
# Input: OCI_* variables (config.mk), `stage` (stage.mk), programs in tools/.
# Output: goals unpack/oci, pack/oci, build/oci, clean/oci; $(OUTPUT_DIR)/oci-image,
# oci-runtime-bundle, blueprint/oci.ext4.
#
#   OCI_IMAGE_URI --fetch--> oci-image --unpack--> oci-runtime-bundle --pack--> blueprint/oci.ext4
#                               |                    (edit it here)                   ^
#                               +----------------------build-------------------------+
#
# A layout on this machine (oci:FOLDER:TAG) is read where it lies. Fetching asks the source each time
# but brings only blobs that are not there yet.

oci-bundle := $(OUTPUT_DIR)/oci-runtime-bundle
oci-disk := $(OUTPUT_DIR)/blueprint/oci.ext4
oci-demo := $(OUTPUT_DIR)/images/redis

# LAYOUT[:REF] to read, and the folder of it.
oci-local = $(patsubst oci:%,%,$(filter oci:%,$(OCI_IMAGE_URI)))
oci-image = $(or $(oci-local),$(OUTPUT_DIR)/oci-image:latest)
oci-layout = $(firstword $(subst :, ,$(oci-image)))
# All that decides what the image's content becomes; index.json stands for the layout.
oci-keys = @$(call sh-quote,$(oci-layout)/index.json) $(call sh-quote,$(oci-image)) \
    $(call sh-quote,epoch $(SOURCE_DATE_EPOCH))
oci-select = --image $(call sh-quote,$(oci-image)) --architecture $(call sh-quote,$(OCI_IMAGE_ARCHITECTURE))
# What is given of OCI_MAX_*.
oci-limits = $(strip $(call oci-limit,bytes,$(OCI_MAX_BYTES)) $(call oci-limit,ratio,$(OCI_MAX_RATIO)) \
    $(call oci-limit,entries,$(OCI_MAX_ENTRIES)) $(call oci-limit,file-size,$(OCI_MAX_FILE_SIZE)) \
    $(call oci-limit,metadata,$(OCI_MAX_METADATA)))
oci-limit = $(if $2,--max-$1 $(call sh-quote,$2))
oci-hostname = --hostname $(call sh-quote,$(OCI_IMAGE_HOSTNAME))

# What `make blueprint` takes: the disk that pack/oci left, as long as nobody names another image than the bundle's;
# else the image itself. The image of a bundle, and of a packed disk, stand beside them.
oci-bundle-of := $(OUTPUT_DIR)/.oci-runtime-bundle.image
oci-packed-of := $(OUTPUT_DIR)/blueprint/.oci.ext4.packed
oci-packed := $(if $(wildcard $(oci-packed-of)),$(shell cat $(oci-packed-of)))
oci-kept := $(strip $(if $(filter pack/oci,$(MAKECMDGOALS)),yes,$(if $(filter build/oci,$(MAKECMDGOALS)),,\
    $(if $(and $(oci-packed),$(or $(filter file,$(origin OCI_IMAGE_URI)),$(filter $(OCI_IMAGE_URI),$(oci-packed)))),yes))))

#: unpack/oci - OCI_IMAGE_URI to an OCI runtime bundle, out/oci-runtime-bundle, to look at and edit
#: pack/oci - the bundle that stands there, whoever made it, to out/blueprint/oci.ext4
#: build/oci - OCI_IMAGE_URI to out/blueprint/oci.ext4 in one go, the same bytes as unpack and pack
#: clean/oci - remove what these made
.PHONY: unpack/oci pack/oci build/oci clean/oci oci-image oci-kept
oci-kept: $(filter pack/oci,$(MAKECMDGOALS))
	$(Q)echo '  KEEP    $(oci-disk) (as pack/oci left it; "make build/oci" makes it from the image)'

# One layout at a time: what others link to (the demo image) is made when it is asked for.
oci-image: $(if $(filter oci:$(oci-demo):%,$(OCI_IMAGE_URI)),$(oci-demo)/index.json)
ifeq ($(oci-local),)
	$(call stage,FETCH,$(OUTPUT_DIR)/oci-image,OCI_IMAGE_URI is what to fetch; SKOPEO_FLAGS can carry --src-creds and the like,,\
	    tools/oci-fetch.sh --architecture $(call sh-quote,$(OCI_IMAGE_ARCHITECTURE)) --output {} \
	    --old $(call sh-quote,$(OUTPUT_DIR)/oci-image) $(SKOPEO_FLAGS) $(call sh-quote,$(OCI_IMAGE_URI)))
else
	@test -e $(call sh-quote,$(oci-layout)/index.json) || { \
	    echo "make: OCI_IMAGE_URI=$(OCI_IMAGE_URI): $(oci-layout) is no OCI image layout" >&2; exit 1; }
endif

unpack/oci: oci-image tools/oci-config $(if $(filter drafter,$(OCI_UNPACKER)),tools/oci-unpack)
ifeq ($(OCI_UNPACKER),drafter)
	$(call stage,UNPACK,$(oci-bundle),if it met a limit: OCI_MAX_* set them,\
	    $(oci-keys),tools/oci-unpack $(oci-select) $(oci-hostname) $(oci-limits) $(OCI_UNPACK_FLAGS) \
	    --output $(oci-bundle))
else ifeq ($(OCI_UNPACKER),umoci)
	$(call stage,UMOCI,$(oci-bundle),'umoci unpack' made no bundle,$(oci-keys),\
	    tools/oci-unpack-umoci.sh $(oci-select) $(oci-hostname) --output {})
else
	@echo "make: OCI_UNPACKER=$(OCI_UNPACKER): is neither drafter nor umoci" >&2; exit 2
endif
	$(Q)printf '%s\n' $(call sh-quote,$(OCI_IMAGE_URI)) >'$(oci-bundle-of)'

pack/oci: tools/oci-pack
	@test -e '$(oci-bundle)/config.json' || { \
	    echo "make: $(oci-bundle) holds no bundle: 'make unpack/oci' makes one" >&2; exit 1; }
	$(call stage,PACK,$(oci-disk),OCI_FREE is the room it shall have,,tools/oci-pack \
	    --free $(call sh-quote,$(OCI_FREE)) --label oci $(OCI_PACK_FLAGS) --output $(oci-disk) $(oci-bundle))
	$(Q)cat '$(oci-bundle-of)' 2>/dev/null >'$(oci-packed-of)' || echo bundle >'$(oci-packed-of)'

build/oci: oci-image tools/oci-build
	$(Q)rm -f '$(oci-packed-of)'
	$(call stage,BUILD,$(oci-disk),if it met a limit: OCI_MAX_* set them,\
	    $(oci-keys),tools/oci-build $(oci-select) $(oci-hostname) --free $(call sh-quote,$(OCI_FREE)) \
	    --label oci $(oci-limits) $(OCI_UNPACK_FLAGS) $(OCI_PACK_FLAGS) --output $(oci-disk))

clean/oci:
	$(Q)for f in oci-image oci-runtime-bundle blueprint/oci.ext4; do \
	    p='$(OUTPUT_DIR)'/$$f; [ ! -d "$$p" ] || chmod -R u+rwx "$$p"; \
	    rm -rf "$$p" "$${p%/*}/.$${p##*/}".*; done

# The demo image: redis from Debian packages.
$(oci-demo)/index.json: examples/run-an-image/make-redis-image.sh blueprint/rootfs/unpack-packages.sh
	$(call say,IMAGE,$(oci-demo))
	$(Q)examples/run-an-image/make-redis-image.sh --architecture '$(OCI_IMAGE_ARCHITECTURE)' \
	    --cache '$(cache-out)' '$(oci-demo)'
