# make            builds every example            make help     lists the targets
# CC, CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS are yours; what the build needs is added to them.

CFLAGS ?= -O2
PREFIX ?= /usr/local

need_cflags := -std=c99 -Wall -Wextra -pedantic
need_ldlibs := -lm
probe = $(shell d=$$(mktemp -d) && echo '$(1)' >$$d/p.c && $(CC) $(CPPFLAGS) $(2) $$d/p.c -o $$d/p 2>/dev/null && echo '$(2)'; rm -rf "$$d")
openmp := $(call probe,int main(void) { return 0; },-fopenmp)
compile = $(CC) $(need_cflags) $(openmp) $(CPPFLAGS) $(CFLAGS)
link = $(LDFLAGS) $(LDLIBS) $(need_ldlibs)

# stb_image, for the programs that read pictures: the system's, or a copy beside cnn.h
stb_programs := edges pretrained
stb_cflags := $(or $(shell pkg-config --cflags stb 2>/dev/null),$(if $(wildcard stb_image.h),-I.))
stb := $(if $(stb_cflags)$(wildcard /usr/include/stb_image.h),yes)
stb_missing := stb_image is not there, so $(stb_programs) are left out; get it with: apt install libstb-dev (or put stb_image.h and stb_image_write.h beside cnn.h)

all_examples := $(patsubst examples/%.c,%,$(wildcard examples/*.c))
examples := $(if $(stb),$(all_examples),$(filter-out $(stb_programs),$(all_examples)))
walkthrough := conv1d conv2d edges padding stride kernels activation pooling sharing lenet1998
test_programs := $(patsubst tests/%.c,build/%,$(wildcard tests/test_*.c))
test_scripts := tests/compile.sh tests/walkthrough.sh tests/programs.sh tests/torch_roundtrip.sh tests/download.sh

.PHONY: all examples test check sanitize valgrind bench bench-torch bench-build ladder arm64 walkthrough install uninstall clean help mnist fashion-mnist cifar-10 $(if $(stb),,$(stb_programs))

all: $(examples)  ## build every example (the default)
	@$(if $(stb),:,echo '$(stb_missing)')

examples: all

# make NAME builds examples/NAME.c into ./NAME
$(examples): %: examples/%.c cnn.h $(wildcard examples/*.h)
	$(compile) $(if $(filter $@,$(stb_programs)),$(stb_cflags:-I%=-isystem %)) $< -o $@ $(link)

ifeq ($(stb),)
$(stb_programs):
	@echo '$(stb_missing)'; exit 1
endif

build/%: tests/%.c cnn.h $(wildcard tests/*.h) $(wildcard examples/*.h)
	@mkdir -p build
	$(compile) $(stb_cflags:-I%=-isystem %) $< -o $@ $(link)

test: $(test_programs) $(examples)  ## run the tests; the last line is the sum
	@CC='$(CC)' tests/run $(test_programs) $(test_scripts)

check: test

sanitize: $(test_programs:build/%=build/sanitize/%)  ## the test programs under AddressSanitizer and UndefinedBehaviorSanitizer
	@tests/run $^

build/sanitize/%: tests/%.c cnn.h $(wildcard tests/*.h)
	@mkdir -p build/sanitize
	$(compile) $(stb_cflags:-I%=-isystem %) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover $< -o $@ $(link)

valgrind: $(test_programs)  ## the test programs, with fewer cases, under valgrind, which knows no AVX-512; takes long
	@CNN_TEST_SHORT=1 CNN_ISA=avx2 tests/run --under 'valgrind -q --error-exitcode=9 --leak-check=full' $^

bench: build/bench  ## how fast training is, as a share of the machine's own limit; takes minutes
	@build/bench $(BENCH)

PYTHON ?= python3
bench-torch: build/bench  ## the same beside PyTorch; PYTHON=... has torch, PEER=... is its program
	@$(if $(PEER),PEER='$(PEER)') $(PYTHON) tests/bench_torch.py $(BENCH)

bench-build: build/bench lenet5  ## what starting and compiling cost, and what -O3 -march=native is worth
	@CC='$(CC)' tests/bench_build.sh

arm64:  ## two test programs on 64-bit ARM, by a cross compiler and qemu; takes minutes
	@tests/arm64.sh

# the library as programs have it, and the ladder's own steps for this machine, with no vectors but those that stand there
build/cnn.o: cnn.h
	@mkdir -p build
	$(compile) -DCNN_IMPLEMENTATION -x c -c $< -o $@

build/ladder: native = $(call probe,int main(void) { return 0; },-march=native)
build/ladder: tests/ladder.c build/cnn.o tests/measure.h
	$(compile) $(native) -ffp-contract=fast -fno-tree-vectorize -fno-tree-slp-vectorize $(filter-out %.h,$^) -o $@ $(link)

ladder: build/ladder  ## from eq. 6.2 to the last kernel, one idea a step, each timed
	@build/ladder

walkthrough: $(filter $(examples),$(walkthrough))  ## run the programs that need no data set, in the lecture's order
	@for program in $(filter $(examples),$(walkthrough)); do echo; echo "---- ./$$program"; echo; ./$$program || exit 1; done

mnist fashion-mnist cifar-10:  ## download a data set into data/, checked by its digests
	examples/download.sh $@

install:  ## copy cnn.h and cnn.pc below $(DESTDIR)$(PREFIX)
	mkdir -p '$(DESTDIR)$(PREFIX)/include' '$(DESTDIR)$(PREFIX)/lib/pkgconfig'
	cp cnn.h '$(DESTDIR)$(PREFIX)/include/cnn.h'
	printf 'prefix=%s\nincludedir=$${prefix}/include\n\nName: cnn\nDescription: convolutional neural networks in one C header\nVersion: 1.0\nCflags: -I$${includedir}\nLibs: -lm\n' '$(PREFIX)' >'$(DESTDIR)$(PREFIX)/lib/pkgconfig/cnn.pc'

uninstall:  ## remove what install copied
	rm -f '$(DESTDIR)$(PREFIX)/include/cnn.h' '$(DESTDIR)$(PREFIX)/lib/pkgconfig/cnn.pc'

clean:  ## remove what was built
	rm -rf build $(all_examples)

help:  ## list the targets
	@echo 'make NAME: build examples/NAME.c into ./NAME, one of'
	@echo '    $(all_examples)'
	@sed -n 's/^\([a-z0-9 -]*\):[^=]*##  *\(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r target what; do printf 'make %s: %s\n' "$$target" "$$what"; done
