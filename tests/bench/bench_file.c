/* bench_file.c - saving and loading 100 million parameters (400 MB). make bench-file PYTHON=...: beside PyTorch (bench_file.py).
   Prints "FORMAT save SECONDS load SECONDS load_memory SECONDS" for each, the median of RUNS. */
#define CNN_IMPLEMENTATION
#include "../../cnn.h"

enum { RUNS = 5, SIDE = 10000 };

static int by_size(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : 1; }

int main(int argc, char **argv)
{
    static const char *const endings[] = { "pth", "safetensors" };
    const char *folder = argc > 1 ? argv[1] : ".";
    cnn_net *net = cnn_new(SIDE, 1, 1);
    char path[600];
    int i, run;
    cnn_flatten(net);
    cnn_name(net, "fc");
    cnn_linear(net, .out_features = SIDE);
    cnn_num_parameters(net);
    for (i = 0; i < 2; i++) {
        double save[RUNS], load[RUNS], memory[RUNS], begun;
        snprintf(path, sizeof path, "%s/bench.%s", folder, endings[i]);
        for (run = 0; run < RUNS && !cnn_error(net); run++) {
            size_t size;
            unsigned char *bytes;
            begun = cnn__seconds();
            cnn_save(net, path);
            save[run] = cnn__seconds() - begun;
            begun = cnn__seconds();
            cnn_load(net, path);
            load[run] = cnn__seconds() - begun;
            bytes = cnn__read_file(path, &size, &net->error);
            begun = cnn__seconds();
            cnn_load_memory(net, bytes, size);
            memory[run] = cnn__seconds() - begun;
            cnn__free(bytes);
        }
        if (cnn_error(net)) return puts(cnn_error(net)), 1;
        qsort(save, RUNS, sizeof *save, by_size);
        qsort(load, RUNS, sizeof *load, by_size);
        qsort(memory, RUNS, sizeof *memory, by_size);
        printf("%s save %.2f load %.2f load_memory %.2f\n", endings[i], save[RUNS / 2], load[RUNS / 2], memory[RUNS / 2]);
        remove(path);
    }
    cnn_free(net);
    return 0;
}
