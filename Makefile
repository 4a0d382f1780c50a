# make            builds every example            make help     lists the targets
# CC, CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS are yours; what the build needs is added to them.

CFLAGS ?= -O2
PREFIX ?= /usr/local

need_cflags := -std=c99 -Wall -Wextra -pedantic
need_ldlibs := -lm
openmp := $(shell echo 'int main(void) { return 0; }' >.openmp.c; $(CC) -fopenmp .openmp.c -o .openmp 2>/dev/null && echo -fopenmp; rm -f .openmp .openmp.c)
compile = $(CC) $(need_cflags) $(openmp) $(CPPFLAGS) $(CFLAGS)
link = $(LDFLAGS) $(LDLIBS) $(need_ldlibs)

examples := $(patsubst examples/%.c,%,$(wildcard examples/*.c))
tests := $(patsubst tests/%.c,build/%,$(wildcard tests/test_*.c)) tests/compile.sh

.PHONY: all examples test check install uninstall clean help mnist fashion-mnist cifar-10

all: examples  ## build every example (the default)

examples: $(examples)

# make NAME builds examples/NAME.c into ./NAME
$(examples): %: examples/%.c cnn.h $(wildcard examples/*.h)
	$(compile) $< -o $@ $(link)

build/%: tests/%.c cnn.h tests/test.h $(wildcard examples/*.h)
	@mkdir -p build
	$(compile) $< -o $@ $(link)

test: $(filter build/%,$(tests)) $(examples)  ## run the tests; the last line is the sum
	@CC='$(CC)' tests/run $(tests)

check: test

mnist fashion-mnist cifar-10:  ## download a data set into data/, checked by its digests
	examples/download.sh $@

install:  ## copy cnn.h and cnn.pc below $(DESTDIR)$(PREFIX)
	mkdir -p '$(DESTDIR)$(PREFIX)/include' '$(DESTDIR)$(PREFIX)/lib/pkgconfig'
	cp cnn.h '$(DESTDIR)$(PREFIX)/include/cnn.h'
	printf 'prefix=%s\nincludedir=$${prefix}/include\n\nName: cnn\nDescription: convolutional neural networks in one C header\nVersion: 1.0\nCflags: -I$${includedir}\nLibs: -lm\n' '$(PREFIX)' >'$(DESTDIR)$(PREFIX)/lib/pkgconfig/cnn.pc'

uninstall:  ## remove what install copied
	rm -f '$(DESTDIR)$(PREFIX)/include/cnn.h' '$(DESTDIR)$(PREFIX)/lib/pkgconfig/cnn.pc'

clean:  ## remove what was built
	rm -rf build $(examples)

help:  ## list the targets
	@echo 'make NAME          build examples/NAME.c into ./NAME: $(examples)'
	@sed -n 's/^\([a-z0-9 -]*\):[^=]*##  *\(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r target what; do printf 'make %-13s %s\n' "$$target" "$$what"; done
