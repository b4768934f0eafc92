# SPDX-License-Identifier: Apache-2.0
# library.mk - libdrafter: runtime/drafter.h as a static and a shared library
#
# Input: closure, sources, objects (compile.mk); VERSION, PREFIX. Output: `libraries`, part of goal all;
# $(OUTPUT_DIR)/lib with libdrafter.a and libdrafter.so.0.
#
# The modules are compiled with hidden symbols; what is public says so in runtime/drafter.h and is listed
# in runtime/lib/libdrafter.map. In the static library all modules are one object whose hidden symbols
# became local, so that they cannot meet those of the program.

lib-dir := $(OUTPUT_DIR)/lib
lib-modules := $(filter $(modules),$(call closure,runtime/lib))
lib-objects := $(call objects,$(foreach m,$(lib-modules),$(call sources,$m)))
lib-pkgs := $(call pkg-names,$(lib-modules))
lib-map := runtime/lib/libdrafter.map
soname := libdrafter.so.0
libraries := $(if $(filter release,$(VARIANT)),$(addprefix $(lib-dir)/,libdrafter.a $(soname) libdrafter.so))
all: $(libraries)

$(lib-dir)/$(soname): $(lib-objects) $(lib-map)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared $(filter-out -pie,$(project-ldflags)) -Wl,-soname,$(soname) -Wl,--version-script=$(lib-map) \
	    -Wl,--no-undefined -o $@ $(lib-objects) $$(pkg-config --libs $(lib-pkgs))
$(lib-dir)/libdrafter.so: $(lib-dir)/$(soname)
	$(Q)ln -sf $(soname) $@
$(lib-dir)/libdrafter.a: $(lib-objects)
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -r -nostdlib -o $(@:.a=.o) $(lib-objects)
	$(Q)objcopy --localize-hidden $(@:.a=.o)
	@rm -f $@
	$(Q)$(AR) rcsD $@ $(@:.a=.o)
	@rm -f $(@:.a=.o)
# The place is known when it is installed. A program that links statically needs our libraries too.
define pc_file
prefix=$(PREFIX)
includedir=$${prefix}/include
libdir=$${prefix}/lib

Name: drafter
Description: virtual machines that are snapshotted, resumed and moved
Version: $(VERSION)
Libs: -L$${libdir} -ldrafter
Libs.private: @libs@ -pthread
Cflags: -I$${includedir}
endef
export pc_file

install-libraries = install -d '$(DESTDIR)$(PREFIX)/lib/pkgconfig' '$(DESTDIR)$(PREFIX)/include' && \
    install -m 644 $(lib-dir)/libdrafter.a '$(DESTDIR)$(PREFIX)/lib' && \
    install -m 755 $(lib-dir)/$(soname) '$(DESTDIR)$(PREFIX)/lib' && \
    ln -sf $(soname) '$(DESTDIR)$(PREFIX)/lib/libdrafter.so' && \
    printf '%s\n' "$$(sed "s|@libs@|$$(pkg-config --libs $(lib-pkgs))|" <<<"$$pc_file")" >'$(DESTDIR)$(PREFIX)/lib/pkgconfig/drafter.pc' && \
    install -m 644 runtime/drafter.h '$(DESTDIR)$(PREFIX)/include'
uninstall-libraries = cd '$(DESTDIR)$(PREFIX)' && rm -f lib/libdrafter.a lib/$(soname) lib/libdrafter.so \
    lib/pkgconfig/drafter.pc include/drafter.h
