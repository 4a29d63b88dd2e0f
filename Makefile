# A thin front for Meson and Ninja. `make help` lists what there is.
B ?= build
PREFIX ?= /usr/local
DESTDIR ?=
SETUP = tools/setup

.PHONY: all help demo check check-asan check-tsan check-vm check-long check-fresh bench peers lint ci install format clean setup-build

all: $(B)/build.ninja  ## build the programs
	@ninja -C $(B)

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

setup-build:
	@$(SETUP) build

$(B)/build.ninja: | setup-build
	@[ -f $@ ] || meson setup $(B) >/dev/null

demo:  ## install what is needed, build, and show the main job on real input
	@$(SETUP) build run
	@$(MAKE) --no-print-directory all
	@examples/hello/demo $(B)

check:  ## install what is needed, build, and run all tests
	@$(SETUP) build run test
	@tools/crane $(B)
	@tools/run-tests $(B) --werror --suite all

check-asan:  ## the unit and system suites under AddressSanitizer and UBSan
	@$(SETUP) build run test
	@tools/run-tests build-asan --sanitize address,undefined --suite all

check-tsan:  ## the threaded rooms under ThreadSanitizer
	@$(SETUP) build run test
	@tools/run-tests build-tsan --sanitize thread --suite threads

check-vm:  ## the tests in guests: with cgroup v2, with power cuts, with systemd
	@$(SETUP) build run test ci
	@tools/run-guest $(B)
	@tools/run-guest-power $(B)
	@tools/run-guest-systemd $(B)

check-fresh:  ## the demo, from a clone, in a minimal Debian made for it
	@$(SETUP) build run test ci
	@tools/run-fresh demo

check-long:  ## the long runs: 200 agent kills, a planted bug a fuzz target, a defence less a safety test, power cuts, check from a clone in a minimal Debian
	@$(SETUP) build run test ci
	@tools/crane $(B)
	@ZLAYER_LONG=1 tools/run-tests $(B) --werror --suite all
	@tools/run-planted
	@tools/run-weakened
	@ZLAYER_LONG=1 tools/run-guest-power $(B)
	@tools/run-weakened-power
	@tools/run-fresh check

bench:  ## the measurements, side by side with the peers
	@$(SETUP) build run test
	@tools/run-bench $(B)

peers:  ## install and build what the measurements compare with
	@$(SETUP) build peers
	@bench/oci/peers $(B)

lint:  ## layers, headers, format, spelling, scripts
	@$(SETUP) build ci
	@tools/lint

ci:  ## what CI runs after `make check`
	@$(SETUP) build run test ci
	@tools/run-ci

install: all  ## install below $(DESTDIR)$(PREFIX)
	@meson configure $(B) -Dprefix=$(PREFIX) >/dev/null
	@DESTDIR="$(if $(DESTDIR),$(abspath $(DESTDIR)))" meson install -C $(B) --quiet

format:  ## put the C sources into the house format
	@git ls-files 'src/*.[ch]' 'tests/*.[ch]' 'examples/*.[ch]' | xargs clang-format-14 -i

clean:  ## remove what the builds made
	@rm -rf build build-asan build-tsan build-clang build-fuzz build-planted build-weakened build-release
