# Builds everything into orion_virt/_lib. `make demo` and `make test` are the two commands of the README.
PY      ?= python3
CC      ?= cc
ZIG     := $(shell $(PY) -c 'import ziglang' 2>/dev/null && echo yes)
GUESTCC ?= $(if $(ZIG),$(PY) -m ziglang cc -target x86_64-linux-gnu.2.17,$(CC))
WARN    := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Werror
CFLAGS  ?= -O2 -g
COMMON  := -std=gnu11 $(WARN) -fno-common -fvisibility=hidden -fPIC -pthread -Iivshmem/include -Iivshmem/gen
LIB     := orion_virt/_lib
BUILD   := $(shell git log -1 --format=%h-%cd --abbrev=7 --date=format:%Y%m%d_%H%M%S 2>/dev/null || echo 0000000-00000000_000000)
SPEC    := $(shell find orion_virt/spec orion_virt/codegen -name '*.py')

# Root leaves no files of its own in a user's checkout.
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo env PYTHONDONTWRITEBYTECODE=1 PYTEST_ADDOPTS='-p no:cacheprovider')
# What the demo and the tests build with: the tools that .ci/setup put into .venv.
VENV    := .venv/bin/python

all: build

demo:
	@.ci/setup
	@$(MAKE) --no-print-directory -s PY=$(VENV) build
	@$(VENV) -m compileall -q orion_virt
	@$(SUDO) $(VENV) guest-agent/demo/run.py

# No test that a plain machine can run is left out; one that skips for another reason than those listed fails the run.
test:
	@.ci/setup
	@$(MAKE) --no-print-directory -s PY=$(VENV) build
	@$(VENV) -m compileall -q orion_virt
	@$(SUDO) env ORION_NO_SKIPS=1 $(VENV) -m pytest -q -n auto --maxprocesses=4 --dist loadfile --durations=25 $(TESTS)

# An hour of faults beside neighbours who must not notice, then a quarter as long with virtual machines; SECONDS= and SEED= choose
# another length and repeat a run.
soak:
	@.ci/setup
	@$(MAKE) --no-print-directory -s PY=$(VENV) build
	@$(SUDO) $(VENV) tests/soak/soak.py --seconds $(or $(SECONDS),3600) $(if $(SEED),--seed $(SEED))
	@$(SUDO) $(VENV) tests/vm/domain_soak.py --seconds $$(( $(or $(SECONDS),3600) / 4 )) $(if $(SEED),--seed $(SEED))

# Old and new releases of NVIDIA's libraries, of the frameworks and of Debian, without a GPU: downloads about 20 GB, once, into ORION_CACHE.
compat:
	@.ci/setup
	@$(MAKE) --no-print-directory -s PY=$(VENV) build
	@$(SUDO) $(VENV) -m pytest -q -m compat tests/compat tests/packages tests/vm/test_guest_programs.py $(TESTS)

# What a guest's bytes can do, by libFuzzer, for an hour a target: `make fuzz FUZZ="60 images"`. Inputs that break one are left in build/fuzz.
fuzz:
	@.ci/setup
	@$(MAKE) --no-print-directory -s PY=$(VENV) gen
	@$(VENV) tests/fuzz/targets.py $(FUZZ)

# Apart, since the program is not free: it is downloaded for the test alone.
test-nvidia-smi: build
	smi=$$(sh tests/loopback/fetch_nvidia_smi.sh build/nvidia-smi) && \
	  ORION_NVIDIA_SMI=$$smi $(PY) -m pytest -q tests/loopback/test_nvidia_smi.py

build: $(LIB)/libexecutor.so $(LIB)/simgpu/libcuda.so.1 $(LIB)/guest/libcuda.so.1 $(LIB)/guest/libnvidia-ml.so.1 $(LIB)/guest/orion-smi $(LIB)/ring-dump $(LIB)/install-client $(LIB)/man/orion-virt.1
gen: build/gen.stamp

build/gen.stamp: $(SPEC)
	$(PY) -m orion_virt.codegen
	@mkdir -p build && touch $@

HEADERS := $(wildcard ivshmem/include/orion/*.h)

$(LIB)/libexecutor.so: build/gen.stamp $(wildcard orion_virt/executor/*.[ch] ivshmem/src/*.c) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(CFLAGS) -Iorion_virt/executor -shared -o $@ orion_virt/executor/*.c orion_virt/executor/gen/*.c -ldl

$(LIB)/simgpu/libcuda.so.1: build/gen.stamp $(wildcard orion_virt/simgpu/*.[ch] orion_virt/simgpu/*.ptx)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(CFLAGS) -Iorion_virt/simgpu -shared -Wl,-soname,libcuda.so.1 -o $@ orion_virt/simgpu/*.c -ldl -lm

$(LIB)/guest/libcuda.so.1: build/gen.stamp $(wildcard guest-agent/libcuda/*.[ch]) $(HEADERS)
	@mkdir -p $(@D)
	$(GUESTCC) $(COMMON) $(CFLAGS) -DOG_BUILD_ID='"$(BUILD)"' -Iguest-agent/libcuda -shared -Wl,-soname,libcuda.so.1 -Wl,-z,nodelete -Wl,-z,defs \
	  -Wl,--version-script=guest-agent/libcuda/gen/libcuda.map -o $@ guest-agent/libcuda/*.c guest-agent/libcuda/gen/*.c -ldl

# The library asks the same server by the same means, so it takes those files as they are.
NVML    := $(wildcard guest-agent/libnvidia-ml/*.c) \
  $(addprefix guest-agent/libcuda/,away.c connect.c hmac.c lock.c log.c mailbox.c maps.c pci.c region.c server.c settings.c settings_file.c snapshot.c)

$(LIB)/guest/libnvidia-ml.so.1: Makefile build/gen.stamp $(NVML) $(wildcard guest-agent/*/*.h) $(HEADERS)
	@mkdir -p $(@D)
	$(GUESTCC) $(COMMON) $(CFLAGS) -Iguest-agent/libnvidia-ml -Iguest-agent/libcuda -shared -Wl,-soname,libnvidia-ml.so.1 \
	  -Wl,-z,nodelete -Wl,-z,defs -Wl,--version-script=guest-agent/libnvidia-ml/gen/libnvidia-ml.map -o $@ \
	  $(NVML) guest-agent/libnvidia-ml/gen/answers.c

# It finds the library beside itself, wherever the client is installed.
$(LIB)/guest/orion-smi: $(LIB)/guest/libnvidia-ml.so.1 $(wildcard guest-agent/orion-smi/*.[ch])
	$(GUESTCC) -std=gnu11 $(WARN) $(CFLAGS) -Iguest-agent/libnvidia-ml -o $@ guest-agent/orion-smi/*.c $< -Wl,-rpath,'$$ORIGIN'

PROBE   := $(wildcard guest-agent/orion-probe/*.c) $(addprefix guest-agent/libcuda/,away.c connect.c hmac.c lock.c log.c mailbox.c maps.c pci.c region.c \
  server.c settings.c settings_file.c snapshot.c)

$(LIB)/guest/orion-probe: build/gen.stamp $(PROBE) $(wildcard guest-agent/libcuda/*.h) $(HEADERS)
	@mkdir -p $(@D)
	$(GUESTCC) $(COMMON) $(CFLAGS) -Iguest-agent/libcuda -o $@ $(PROBE) -ldl

$(LIB)/ring-dump: build/gen.stamp $(wildcard ivshmem/tools/*.c) $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(COMMON) $(CFLAGS) -o $@ ivshmem/tools/*.c

$(LIB)/guest/orion-demo: guest-agent/demo/demo.c
	@mkdir -p $(@D)
	$(GUESTCC) -std=gnu11 -Wall -Wextra -Werror $(CFLAGS) -o $@ $< -ldl -lm

$(LIB)/install-client: $(LIB)/guest/libcuda.so.1 $(LIB)/guest/orion-smi $(LIB)/guest/orion-probe $(LIB)/guest/orion-demo $(wildcard guest-agent/installer/*) guest-agent/demo/kernels.ptx
	$(PY) guest-agent/installer/build.py $(LIB) $@

# For host and guest, .deb and .rpm. The host's carries its Python packages, so it is for this machine's Python.
packages: build
	$(PY) packaging/build.py build/packages

$(LIB)/man/orion-virt.1: $(wildcard orion_virt/cli/*.py) orion_virt/errors.py
	$(PY) -m orion_virt.cli.man $(@D)

# The documentation's site, from docs/ and from what the code says of itself; needs no network. A warning is an error.
SITE    ?= build/site
.PHONY: docs
docs: PY := $(or $(wildcard $(VENV)),$(PY))
docs:
	@$(PY) -c 'import furo, myst_parser, sphinx' || { echo "docs: run .ci/setup, or pip install '.[docs]'" >&2; exit 1; }
	$(PY) -m sphinx -q -W --keep-going -E -d $(SITE).doctrees docs $(SITE)

# Needed only when kernels.cu changes; takes NVRTC from the virtual environment.
demo-ptx:
	.venv/bin/python guest-agent/demo/compile.py guest-agent/demo/kernels.cu > guest-agent/demo/kernels.ptx

clean:
	rm -rf build $(LIB) ivshmem/gen guest-agent/*/gen orion_virt/executor/gen orion_virt/simgpu/gen

.PHONY: all demo test soak compat fuzz test-nvidia-smi build gen clean demo-ptx packages
