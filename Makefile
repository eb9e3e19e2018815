# Builds everything into orion_virt/_lib. `make demo` and `make test` are the two commands of the README.
PY      ?= python3
CC      ?= cc
ZIG     := $(shell $(PY) -c 'import ziglang' 2>/dev/null && echo yes)
GUESTCC ?= $(if $(ZIG),$(PY) -m ziglang cc -target x86_64-linux-gnu.2.17,$(CC))
WARN    := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Werror
CFLAGS  ?= -O2 -g
COMMON  := -std=gnu11 $(WARN) -fno-common -fvisibility=hidden -fPIC -pthread -Iivshmem/include -Iivshmem/gen
LIB     := orion_virt/_lib
SPEC    := $(shell find orion_virt/spec orion_virt/codegen -name '*.py')

build: $(LIB)/libexecutor.so $(LIB)/simgpu/libcuda.so.1 $(LIB)/guest/libcuda.so.1 $(LIB)/ring-dump
gen: build/gen.stamp

build/gen.stamp: $(SPEC)
	$(PY) -m orion_virt.codegen
	@mkdir -p build && touch $@

HEADERS := $(wildcard ivshmem/include/orion/*.h)

$(LIB)/libexecutor.so: build/gen.stamp $(wildcard orion_virt/executor/*.[ch] ivshmem/src/*.c) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(CFLAGS) -Iorion_virt/executor -shared -o $@ orion_virt/executor/*.c orion_virt/executor/gen/*.c -ldl

$(LIB)/simgpu/libcuda.so.1: build/gen.stamp $(wildcard orion_virt/simgpu/*.[ch])
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(CFLAGS) -Iorion_virt/simgpu -shared -Wl,-soname,libcuda.so.1 -o $@ orion_virt/simgpu/*.c -ldl -lm

$(LIB)/guest/libcuda.so.1: build/gen.stamp $(wildcard guest-agent/libcuda/*.[ch]) $(HEADERS)
	@mkdir -p $(@D)
	$(GUESTCC) $(COMMON) $(CFLAGS) -Iguest-agent/libcuda -shared -Wl,-soname,libcuda.so.1 -Wl,-z,nodelete \
	  -Wl,--version-script=guest-agent/libcuda/gen/libcuda.map -o $@ guest-agent/libcuda/*.c guest-agent/libcuda/gen/*.c -ldl

$(LIB)/ring-dump: $(wildcard ivshmem/tools/*.c) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(CFLAGS) -o $@ ivshmem/tools/*.c

clean:
	rm -rf build $(LIB) ivshmem/gen guest-agent/libcuda/gen orion_virt/executor/gen orion_virt/simgpu/gen

.PHONY: build gen clean
