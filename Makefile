# make            builds every example            make help     lists the targets
# CC, CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS are yours; what the build needs is added to them.

CFLAGS ?= -O2
PREFIX ?= /usr/local

need_cflags := -std=c99 -Wall -Wextra -pedantic
probe = $(shell d=$$(mktemp -d) && echo '$(1)' >$$d/p.c && $(CC) $(CPPFLAGS) $(2) $$d/p.c -o $$d/p 2>/dev/null && echo '$(2)'; rm -rf "$$d")

# threads are part of the C library, but for glibc before 2.34
pthread_program := int pthread_create(void); int main(void) { return pthread_create(); }
need_ldlibs := -lm $(if $(call probe,$(pthread_program),-O1),,-pthread)
compile = $(CC) $(need_cflags) $(CPPFLAGS) $(CFLAGS)
link = $(LDFLAGS) $(LDLIBS) $(need_ldlibs)

# stb_image, for the programs that read pictures: the system's, or a copy beside cnn.h
stb_programs := augment edges photos pretrained
stb_cflags := $(or $(shell pkg-config --cflags stb 2>/dev/null),$(if $(wildcard stb_image.h),-I.))
stb := $(if $(stb_cflags)$(wildcard /usr/include/stb_image.h),yes)
stb_missing := stb_image is not there, so $(stb_programs) are left out; get it with: apt install libstb-dev (or put stb_image.h and stb_image_write.h beside cnn.h)

# cnn_cuda.cu, linked into every example: make CUDA=1 NAME for a GPU, make cuda-on-cpu NAME for the same kernels on the CPU
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_ARCH ?= all-major
GXX ?= g++
nvcc_flags := -O3 -std=c++17 --threads 0 -arch=$(CUDA_ARCH)
nvcc_strict := -Werror all-warnings -Xptxas -Werror,-warn-spills,-warn-lmem-usage,-v   # errors here, but not in a user's build
shim_flags := -std=c++17 -Wall -Wextra -Wno-unknown-pragmas -include tests/cuda/cuda_shim.h -x c++
nvcc_missing := nvcc is not there (the CUDA toolkit; or set NVCC=path), so everything is built without the backend cuda
PYTHON ?= python3
cudart = -L$(dir $(shell readlink -f $(NVCC)))../lib64 -lcudart_static -lstdc++ -lpthread -ldl -lrt
ifneq ($(filter cuda-on-cpu,$(MAKECMDGOALS)),)
cuda_object := build/cuda-on-cpu/cnn_cuda.o
cuda_link := -lstdc++
else ifneq ($(CUDA),)
ifeq ($(NVCC),)
$(info $(nvcc_missing))
else
cuda_object := build/cuda/cnn_cuda.o
cuda_link = $(cudart)
endif
endif

all_examples := $(patsubst examples/%.c,%,$(wildcard examples/*.c))
examples := $(if $(stb),$(all_examples),$(filter-out $(stb_programs),$(all_examples)))
walkthrough := conv1d conv2d edges padding stride kernels activation pooling sharing lenet1998
vpath %.c tests tests/bench tests/cuda
test_headers := $(wildcard tests/*.h tests/*/*.h)
test_programs := $(patsubst tests/%.c,build/%,$(wildcard tests/test_*.c))
cuda_programs := test_augment test_backends test_cuda test_flow test_graph test_learning test_library test_mma test_norm test_numbers test_read test_shapes
gpu_programs := $(if $(NVCC),$(cuda_programs:%=build/cuda/%))
shim_programs := $(if $(shell command -v $(GXX)),$(cuda_programs:%=build/cuda-on-cpu/%))
test_scripts := $(addprefix tests/,cuda/cuda.sh platforms/compile.sh programs/walkthrough.sh programs/programs.sh \
    programs/pages.sh programs/torch_roundtrip.sh programs/download.sh)

cuda_targets := cuda-on-cpu cuda-plan cuda-sanitize cuda-bugs cuda-compile test-cuda bench-cuda ladder-cuda
.PHONY: $(cuda_targets) FORCE all examples test test-programs check sanitize sanitize-threads valgrind bench bench-threads bench-file bench-infer bench-torch bench-build ladder mutants arm64 windows microcontroller web test-web walkthrough install uninstall clean help mnist fashion-mnist cifar-10 $(if $(stb),,$(stb_programs))

all: $(examples)  ## build every example (the default)
	@$(if $(stb),:,echo '$(stb_missing)')

examples: all

# make NAME builds examples/NAME.c into ./NAME
$(examples): %: examples/%.c cnn.h $(wildcard examples/*.h) build/linked-with $(cuda_object)
	$(compile) $(if $(filter $@,$(stb_programs)),$(stb_cflags:-I%=-isystem %)) $< $(cuda_object) -o $@ $(cuda_link) $(link)

build/linked-with: FORCE                    # changes when the examples are to be linked with another cnn_cuda.o
	@mkdir -p build
	@echo '$(cuda_object)' | cmp -s - $@ || echo '$(cuda_object)' >$@

ifeq ($(stb),)
$(stb_programs):
	@echo '$(stb_missing)'; exit 1
endif

build/%: %.c cnn.h $(test_headers) $(wildcard examples/*.h)
	@mkdir -p build
	$(compile) $(stb_cflags:-I%=-isystem %) $< -o $@ $(link)

# an overflow ends it
build/test_shapes: CFLAGS += $(call probe,int main(void) { return 0; },-fsanitize=undefined -fsanitize=float-cast-overflow -fno-sanitize-recover=all)

build/cuda/cnn_cuda.o: cnn_cuda.cu cnn.h
	@mkdir -p build/cuda
	$(NVCC) $(nvcc_flags) -c $< -o $@

build/cuda-on-cpu/cnn_cuda.o: cnn_cuda.cu cnn.h tests/cuda/cuda_shim.h
	@mkdir -p build/cuda-on-cpu
	$(GXX) $(shim_flags) -O2 -g -c $< -o $@

build/cuda-on-cpu/%: %.c cnn.h $(test_headers) build/cuda-on-cpu/cnn_cuda.o
	$(compile) -DCUDA_ON_CPU $< build/cuda-on-cpu/cnn_cuda.o -o $@ -lstdc++ $(link)

build/cuda-on-cpu/test_mma: tests/cuda/test_mma.cu cnn_cuda.cu cnn.h tests/cuda/cuda_shim.h tests/test.h
	@mkdir -p build/cuda-on-cpu
	$(GXX) $(shim_flags) -O2 -g $< -o $@

build/cuda/test_mma: tests/cuda/test_mma.cu cnn_cuda.cu cnn.h tests/test.h
	@mkdir -p build/cuda
	$(NVCC) $(nvcc_flags) $< -o $@

build/cuda/%: %.c cnn.h $(test_headers) $(wildcard examples/*.h) build/cuda/cnn_cuda.o
	$(compile) $< build/cuda/cnn_cuda.o -o $@ $(cudart) $(link)

cuda-on-cpu:  ## make cuda-on-cpu NAME: ./NAME --backend cuda runs the CUDA kernels on the CPU, slowly
	@:

build/cuda-compile/cnn_cuda.o: cnn_cuda.cu cnn.h
	@mkdir -p build/cuda-compile
	$(NVCC) $(nvcc_flags) $(nvcc_strict) -c $< -o $@ 2>build/cuda-compile/log || { grep -v '^ptxas info' build/cuda-compile/log; exit 1; }

build/cuda-compile/test_cuda: test_cuda.c cnn.h tests/test.h build/cuda-compile/cnn_cuda.o
	$(compile) $< build/cuda-compile/cnn_cuda.o -o $@ $(cudart) $(link)

cuda-compile: $(if $(NVCC),build/cuda-compile/test_cuda)  ## compile the kernels for every major architecture; registers, code size; nothing else linked
	@$(if $(NVCC),NVCC='$(NVCC)' ARCH='$(filter sm_%,$(CUDA_ARCH))' tests/cuda/cuda_compile.sh build/cuda-compile/cnn_cuda.o build/cuda-compile/log,echo '$(nvcc_missing)')

build/cuda-plan: tests/cuda/plan.cu tests/cuda/plan.c tests/cuda/plan.h cnn_cuda.cu cnn.h tests/cuda/cuda_shim.h tests/lecture.h examples/networks.h
	@mkdir -p build
	$(GXX) $(shim_flags) -O1 -c tests/cuda/plan.cu -o build/cuda-plan.o
	$(compile) tests/cuda/plan.c build/cuda-plan.o -o $@ -lstdc++ $(link)

cuda-plan: build/cuda-plan  ## the launches of a training step of each lecture network, and an estimate of each; needs no GPU
	@build/cuda-plan

build/cuda-asan/cnn_cuda.o build/cuda-tsan/cnn_cuda.o: cnn_cuda.cu cnn.h tests/cuda/cuda_shim.h
	@mkdir -p $(@D)
	$(GXX) $(shim_flags) -O1 -g $(sanitizer) -fno-sanitize-recover -c $< -o $@

build/cuda-asan/test_mma build/cuda-tsan/test_mma: tests/cuda/test_mma.cu cnn_cuda.cu cnn.h tests/cuda/cuda_shim.h tests/test.h
	@mkdir -p $(@D)
	$(GXX) $(shim_flags) -O1 -g $(sanitizer) -fno-sanitize-recover $< -o $@

build/cuda-asan/%: %.c cnn.h $(test_headers) build/cuda-asan/cnn_cuda.o
	$(compile) -DCUDA_ON_CPU -O1 -g $(sanitizer) -fno-sanitize-recover $< $(@D)/cnn_cuda.o -o $@ -lstdc++ $(link)

build/cuda-tsan/%: %.c cnn.h $(test_headers) build/cuda-tsan/cnn_cuda.o
	$(compile) -DCUDA_ON_CPU -O1 -g $(sanitizer) $< $(@D)/cnn_cuda.o -o $@ -lstdc++ $(link)

build/cuda-asan/%: sanitizer = -fsanitize=address,undefined
build/cuda-tsan/%: sanitizer = -fsanitize=thread

cuda-sanitize: $(foreach s,asan tsan,$(foreach t,backends cuda mma,build/cuda-$s/test_$t))  ## the kernels on the CPU under the sanitizers
	CUDA_SHIM_ORDER=reversed build/cuda-asan/test_backends cuda 40
	CUDA_SHIM_ORDER=forward build/cuda-asan/test_backends cuda_naive 20
	build/cuda-asan/test_cuda
	build/cuda-asan/test_mma
	CUDA_SHIM_ORDER=shuffled build/cuda-tsan/test_backends cuda 12
	build/cuda-tsan/test_cuda
	build/cuda-tsan/test_mma

cuda-bugs:  ## plant bugs into the kernels, one at a time: the tests must find each
	@CC='$(CC)' GXX='$(GXX)' tests/run tests/cuda/cuda_bugs.sh

mutants:  ## plant bugs into cnn.h, one at a time: which share do the tests notice? MUTANTS='--seed 2 --count 50'; needs Python; an hour or two
	@CC='$(CC)' $(PYTHON) tests/mutants/mutants.py $(MUTANTS)

gpu_needed = $(if $(NVCC),,@echo '$(nvcc_missing)'; exit 1)

test-cuda: $(gpu_programs)  ## all tests on a GPU; fails where there is none
	$(gpu_needed)
	@$(MAKE) --no-print-directory CUDA=1 lenet5 mnist_cnn fashion_mnist cifar10
	@tests/run tests/cuda/gpu.sh

ladder-cuda: $(if $(NVCC),build/cuda/ladder_cuda)  ## from the naive kernels to the used ones, layer by layer, on a GPU
	$(gpu_needed)
	@build/cuda/ladder_cuda

bench-cuda: $(if $(NVCC),build/cuda/bench_cuda)  ## training on a GPU beside PyTorch: eager, compiled, captured; PYTHON=... has torch
	$(gpu_needed)
	@nvidia-smi --query-gpu=name,driver_version --format=csv,noheader; date
	@$(PYTHON) tests/bench/bench_cuda_torch.py $(BENCH)

test:  ## run the tests, built two at a time without -j; the last line is the sum
	@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j2) test-programs
	@CC='$(CC)' tests/run $(test_programs) $(test_scripts)

test-programs: $(test_programs) $(examples) $(shim_programs)

check: test

sanitize: $(test_programs:build/%=build/sanitize/%)  ## the test programs under AddressSanitizer and UndefinedBehaviorSanitizer
	@tests/run $^

# clang compiles its sanitizers without optimization in a tenth of gcc's time, and they see more, as an offset from NULL
clang_sanitizes = $(shell echo 'int main(void) { return 0; }' | clang -fsanitize=address,undefined -x c - -o /dev/null 2>/dev/null && echo clang -O0)
sanitizing = $(or $(clang_sanitizes),$(CC) -O1) $(need_cflags) -g -fsanitize=address,undefined -fno-sanitize-recover=all
build/sanitize/%: %.c cnn.h $(test_headers)
	@mkdir -p build/sanitize
	$(sanitizing) $(CPPFLAGS) $(stb_cflags:-I%=-isystem %) $< -o $@ $(link)

sanitize-threads: build/sanitize-threads/test_pool build/sanitize-threads/test_read build/sanitize-threads/test_threads  ## the thread tests under ThreadSanitizer
	@TSAN_OPTIONS=die_after_fork=0 CNN_TEST_SHORT=1 tests/run $^

build/sanitize-threads/%: %.c cnn.h $(test_headers)
	@mkdir -p build/sanitize-threads
	$(compile) -O1 -g -fsanitize=thread $< -o $@ $(link)

valgrind: $(test_programs)  ## the test programs, with fewer cases, under valgrind, which knows no AVX-512; takes long
	@CNN_TEST_SHORT=1 CNN_ISA=avx2 tests/run --under 'valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect' $^

bench: build/bench build/bench_shapes  ## how fast training is, as a share of the machine's own limit; then any batch, any shape; takes minutes
	@build/bench $(BENCH)
	@$(if $(BENCH),,build/bench_shapes --ways)

bench-threads: build/bench_threads  ## idle, beside busy processes, more threads than processors; begin with an idle machine
	@build/bench_threads $(BENCH)

bench-torch: build/bench  ## the same beside PyTorch; PYTHON=... has torch, PEER=... is its program
	@$(if $(PEER),PEER='$(PEER)') $(PYTHON) tests/bench/bench_torch.py $(BENCH)

bench-infer: cnn.h  ## one picture at a time, beside PyTorch, ONNX Runtime and OpenVINO; PYTHON=... has those that are to be compared
	@$(if $(PEER),PEER='$(PEER)') $(PYTHON) tests/bench/bench_infer.py $(BENCH)

bench-file: build/bench_file  ## saving and loading 400 MB beside PyTorch; PYTHON=... has torch, FOLDER=... is where
	@$(PYTHON) tests/bench/bench_file.py build/bench_file $(or $(FOLDER),build)

bench-build: build/bench lenet5  ## what starting and compiling cost, and what -O3 -march=native is worth
	@CC='$(CC)' tests/bench/bench_build.sh

# The page. WEIGHTS=FILE is a state dict of ./lenet5 --save; without it, LeNet-5 is trained first: on MNIST in the folder DATA
# or in data/mnist, else on the built-in digits. The page judges the weights by the test digits that are there.
WASM_CC ?= clang
wasm_flags := --target=wasm32-wasi $(need_cflags) -O2 -msimd128 -mexec-model=reactor -Wl,--strip-all
wasm_missing := make web needs clang and lld for WebAssembly and wasi-libc; get them with: apt install clang lld wasi-libc libclang-rt-14-dev-wasm32 (14: the version of clang)
web_data := $(or $(DATA),$(wildcard data/mnist))
web_weights := $(or $(WEIGHTS),build/web/$(if $(web_data),mnist,digits).safetensors)

build/web/page.wasm: examples/web/page.c examples/web/bugs.h examples/digits.h examples/networks.h cnn.h
	@mkdir -p build/web
	@echo 'int main(void) { return 0; }' | $(WASM_CC) --target=wasm32-wasi -x c - -o build/web/probe 2>/dev/null || { echo '$(wasm_missing)'; exit 1; }
	$(WASM_CC) $(wasm_flags) $< -o $@

build/web/pack build/web/native: cnn.h examples/digits.h examples/networks.h
	@mkdir -p build/web
	$(compile) $(filter %/$(@F).c,examples/web/pack.c tests/web/native.c) -o $@ $(link)
build/web/pack: examples/web/pack.c
build/web/native: tests/web/native.c

build/web/mnist.safetensors build/web/digits.safetensors: | build/web/page.wasm lenet5
	cd build/web && ../../lenet5 $(if $(web_data),--data '$(abspath $(web_data))') --epochs 3 --save $(@F)

web: build/web/page.wasm build/web/pack $(web_weights)  ## lenet5.html: draw a digit in a browser and see LeNet-5 think; WEIGHTS=FILE, DATA=FOLDER; needs clang, lld, wasi-libc
	@build/web/pack '$(web_weights)' build/web $(if $(web_data),'$(web_data)') >build/web/page.html
	@mv build/web/page.html lenet5.html
	@echo "lenet5.html: $$(wc -c <lenet5.html) bytes; open it in a browser"

test-web: web build/web/native  ## the page in Chromium and Firefox; needs chromium-driver, Python; DATA=FOLDER has MNIST
	@DATA='$(web_data)' tests/run tests/web/web.py

windows:  ## the threads on Windows, by mingw-w64 and wine
	@tests/platforms/windows.sh

microcontroller:  ## LeNet-5, exported as C, on a Cortex-M3: newlib and qemu's mps2-an385
	@tests/platforms/microcontroller.sh

arm64:  ## two test programs on 64-bit ARM, by a cross compiler and qemu; takes minutes
	@tests/platforms/arm64.sh

# the library as programs have it, and the ladder's own steps for this machine, with no vectors but those that stand there
build/cnn.o: cnn.h
	@mkdir -p build
	$(compile) -DCNN_IMPLEMENTATION -x c -c $< -o $@

build/ladder: native = $(call probe,int main(void) { return 0; },-march=native)
build/ladder: tests/bench/ladder.c build/cnn.o tests/bench/measure.h
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
	printf 'prefix=%s\nincludedir=$${prefix}/include\n\nName: cnn\nDescription: convolutional neural networks in one C header\nVersion: %s\nCflags: -I$${includedir}\nLibs: $(need_ldlibs)\n' '$(PREFIX)' "$$(sed -n 's/^#define CNN_VERSION "\(.*\)".*/\1/p' cnn.h)" >'$(DESTDIR)$(PREFIX)/lib/pkgconfig/cnn.pc'

uninstall:  ## remove what install copied
	rm -f '$(DESTDIR)$(PREFIX)/include/cnn.h' '$(DESTDIR)$(PREFIX)/lib/pkgconfig/cnn.pc'

clean:  ## remove what was built
	rm -rf build lenet5.html $(all_examples)

help:  ## list the targets
	@echo 'make NAME: build examples/NAME.c into ./NAME, one of'
	@echo '    $(all_examples)'
	@sed -n 's/^\([a-z0-9 -]*\):[^=]*##  *\(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r target what; do printf 'make %s: %s\n' "$$target" "$$what"; done
