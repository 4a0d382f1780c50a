/* test_plan.c - how `simd` divides its work, number for number: for each instruction set that this compiler has, of some
   shapes the parts that images are cut into, Winograd or not, pieces, the windows of dweight, the scratch memory. None
   of it changes a result by more than rounding, so no other test sees it.

       build/test_plan --table      prints the table anew, where a rule was changed on purpose */
#define CNN_IMPLEMENTATION
#include "../cnn.h"
#include "test.h"

typedef struct plan_row { const char *shape, *way[3]; } plan_row;          /* of 4, 8 and 16 lanes */

/* A convolution: batch, maps in x height x width, maps out; k kernel, s stride, p padding, d dilation, g groups; m max
   pooling: kernel / stride, padding. Or "linear": batch, features in, features out */
static const plan_row table[] = {
    { "1, 1 x 28 x 28, 6; k5 x 5 s1 p2 d1 g1 m2 / 2, 0", {
        "2 x 4 of 7 x 4, 0 points, 2 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 2 of 4 lanes, 4 images; 89088; 16 threads: 2 x 1, 1 x 16 few",
        "14 x 1 of 1 x 14, 0 points, 2 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 1 of 8 lanes, 4 images; 93312; 16 threads: 2 x 1, 1 x 16 few",
        "14 x 1 of 1 x 14, 0 points, 1 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 1 of 8 lanes, 4 images; 101760; 16 threads: 1 x 1, 1 x 16 few" } },
    { "1, 6 x 14 x 14, 16; k5 x 5 s1 p0 d1 g1 m2 / 2, 0", {
        "3 x 1 of 2 x 5, 8 points, 1 x 2 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 8 of 4 lanes, 3 images; 343296; 16 threads: 1 x 2, 1 x 16 few",
        "2 x 3 of 3 x 2, 8 points, 1 x 2 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 4 of 8 lanes, 3 images; 372480; 16 threads: 1 x 2, 1 x 16 few",
        "5 x 3 of 1 x 2, 8 points, 1 x 2 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 2 of 16 lanes, 3 images; 673536; 16 threads: 1 x 2, 1 x 16 few" } },
    { "1, 16 x 5 x 5, 120; k5 x 5 s1 p0 d1 g1", {
        "1 x 1 of 1 x 1, 0 points, 1 x 15 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 20 of 4 lanes dense, 4 images; 1148544; 16 threads: 1 x 15, 1 x 16 few",
        "1 x 1 of 1 x 1, 0 points, 1 x 15 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 10 of 8 lanes dense, 8 images; 473344; 16 threads: 1 x 15, 1 x 16 few",
        "1 x 1 of 1 x 1, 0 points, 1 x 15 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 5 of 16 lanes dense, 10 images; 474368; 16 threads: 1 x 15, 1 x 16 few" } },
    { "3, 6 x 14 x 14, 16; k5 x 5 s1 p2 d1 g1 m2 / 2, 0", {
        "1 x 1 of 7 x 7, 8 points, 1 x 2 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 8 of 4 lanes, 2 images; 759680; 16 threads: 1 x 2, 1 x 16 few",
        "4 x 2 of 2 x 4, 8 points, 3 x 2 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 4 of 8 lanes, 2 images; 576128; 16 threads: 3 x 2, 1 x 16 few",
        "4 x 1 of 2 x 7, 8 points, 1 x 2 pieces; 0 points few, 1 x 4 pieces, 1 x 5 x 2 of 16 lanes, 2 images; 929664; 16 threads: 1 x 2, 1 x 16 few" } },
    { "128, 6 x 14 x 14, 16; k5 x 5 s1 p2 d1 g1 m2 / 2, 0", {
        "1 x 1 of 7 x 7, 8 points, 32 x 1 pieces; 8 points, 16 x 1 pieces, 1 x 5 x 8 of 4 lanes, 2 images; 960128; 16 threads: 32 x 1, 16 x 1",
        "1 x 1 of 7 x 7, 8 points, 16 x 1 pieces; 8 points, 16 x 1 pieces, 1 x 5 x 4 of 8 lanes, 2 images; 1675136; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 7 x 7, 8 points, 8 x 1 pieces; 8 points, 8 x 1 pieces, 1 x 5 x 2 of 16 lanes, 2 images; 3022720; 16 threads: 8 x 2, 8 x 2 few" } },
    { "1, 32 x 28 x 28, 64; k3 x 3 s1 p1 d1 g1 m2 / 2, 0", {
        "1 x 4 of 14 x 4, 6 points, 1 x 8 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 24 of 4 lanes, 1 images; 2071744; 16 threads: 1 x 8, 1 x 16 few",
        "7 x 1 of 2 x 14, 6 points, 1 x 8 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 12 of 8 lanes, 1 images; 2258560; 16 threads: 1 x 8, 1 x 16 few",
        "7 x 2 of 2 x 7, 6 points, 1 x 8 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 6 of 16 lanes, 1 images; 2630016; 16 threads: 1 x 8, 1 x 16 few" } },
    { "8, 32 x 28 x 28, 64; k3 x 3 s1 p1 d1 g1 m2 / 2, 0", {
        "1 x 1 of 14 x 14, 6 points, 2 x 8 pieces; 6 points, 2 x 2 pieces, 1 x 3 x 24 of 4 lanes, 1 images; 5171200; 16 threads: 2 x 8, 2 x 8 few",
        "1 x 1 of 14 x 14, 6 points, 1 x 8 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 12 of 8 lanes, 1 images; 11532672; 16 threads: 1 x 8, 1 x 16 few",
        "7 x 1 of 2 x 14, 6 points, 4 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 6 of 16 lanes, 1 images; 10748160; 16 threads: 4 x 4, 1 x 16 few" } },
    { "128, 32 x 28 x 28, 64; k3 x 3 s1 p1 d1 g1 m2 / 2, 0", {
        "1 x 1 of 14 x 14, 6 points, 32 x 1 pieces; 6 points, 16 x 1 pieces, 1 x 3 x 24 of 4 lanes, 1 images; 6206976; 16 threads: 32 x 1, 16 x 1",
        "1 x 1 of 14 x 14, 6 points, 16 x 1 pieces; 6 points, 16 x 1 pieces, 1 x 3 x 12 of 8 lanes, 1 images; 10612480; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 14 x 14, 6 points, 8 x 1 pieces; 6 points, 8 x 1 pieces, 1 x 3 x 6 of 16 lanes, 1 images; 18094336; 16 threads: 8 x 2, 8 x 2 few" } },
    { "1, 3 x 32 x 32, 64; k3 x 3 s1 p1 d1 g1", {
        "8 x 2 of 4 x 16, 0 points, 4 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 3 of 4 lanes dense, 1 images; 930688; 16 threads: 4 x 4, 1 x 16 few",
        "16 x 2 of 2 x 16, 0 points, 4 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 2 of 8 lanes dense, 1 images; 1004416; 16 threads: 4 x 4, 1 x 16 few",
        "32 x 2 of 1 x 16, 0 points, 4 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 1 of 16 lanes dense, 1 images; 1131520; 16 threads: 4 x 4, 1 x 16 few" } },
    { "1, 64 x 32 x 32, 64; k3 x 3 s1 p1 d1 g1 m2 / 2, 0", {
        "2 x 2 of 8 x 8, 6 points, 1 x 8 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 48 of 4 lanes, 1 images; 2730944; 16 threads: 1 x 8, 1 x 16 few",
        "4 x 2 of 4 x 8, 6 points, 1 x 8 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 24 of 8 lanes, 1 images; 2843264; 16 threads: 1 x 8, 1 x 16 few",
        "8 x 4 of 2 x 4, 6 points, 2 x 8 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 12 of 16 lanes, 1 images; 3140608; 16 threads: 2 x 8, 1 x 16 few" } },
    { "32, 128 x 16 x 16, 128; k3 x 3 s1 p1 d1 g1 m2 / 2, 0", {
        "1 x 1 of 8 x 8, 6 points, 8 x 1 pieces; 6 points, 8 x 1 pieces, 1 x 3 x 96 of 4 lanes, 1 images; 12187776; 16 threads: 8 x 2, 8 x 2 few",
        "1 x 1 of 8 x 8, 6 points, 4 x 1 pieces; 6 points, 4 x 1 pieces, 1 x 3 x 48 of 8 lanes, 1 images; 13322624; 16 threads: 4 x 4, 4 x 4 few",
        "1 x 1 of 8 x 8, 6 points, 2 x 8 pieces; 6 points, 2 x 2 pieces, 1 x 3 x 24 of 16 lanes, 1 images; 18470784; 16 threads: 2 x 8, 2 x 8 few" } },
    { "1, 128 x 16 x 16, 128; k3 x 3 s1 p1 d1 g1 m2 / 2, 0", {
        "2 x 2 of 4 x 4, 6 points own, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 96 of 4 lanes, 1 images; 1968960; 16 threads: 1 x 16, 1 x 16 few",
        "2 x 4 of 4 x 2, 6 points own, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 48 of 8 lanes, 1 images; 2052608; 16 threads: 1 x 16, 1 x 16 few",
        "4 x 4 of 2 x 2, 6 points own, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 24 of 16 lanes, 1 images; 2154496; 16 threads: 1 x 16, 1 x 16 few" } },
    { "1, 256 x 8 x 8, 256; k3 x 3 s1 p1 d1 g1 m2 / 2, 0", {
        "4 x 1 of 1 x 4, 0 points, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 192 of 4 lanes, 1 images; 4996608; 16 threads: 1 x 16, 1 x 16 few",
        "4 x 2 of 1 x 2, 0 points, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 96 of 8 lanes, 1 images; 4996608; 16 threads: 1 x 16, 1 x 16 few",
        "4 x 4 of 1 x 1, 0 points, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 48 of 16 lanes, 1 images; 4996608; 16 threads: 1 x 16, 1 x 16 few" } },
    { "1, 512 x 4 x 4, 512; k3 x 3 s1 p1 d1 g1 m2 / 2, 0", {
        "2 x 2 of 1 x 1, 0 points, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 384 of 4 lanes, 1 images; 19116544; 16 threads: 1 x 16, 1 x 16 few",
        "4 x 2 of 1 x 2 later, 0 points, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 192 of 8 lanes, 1 images; 19116544; 16 threads: 1 x 16, 1 x 16 few",
        "4 x 4 of 1 x 1 later, 0 points, 1 x 16 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 96 of 16 lanes, 1 images; 19116544; 16 threads: 1 x 16, 1 x 16 few" } },
    { "2, 8 x 9 x 7, 8; k3 x 3 s1 p1 d1 g1 m3 / 2, 1", {
        "1 x 2 of 9 x 4 later, 6 points, 1 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 6 of 4 lanes, 4 images; 126912; 16 threads: 1 x 1, 1 x 16 few",
        "2 x 2 of 5 x 4 later, 6 points, 1 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 3 of 8 lanes, 5 images; 162176; 16 threads: 1 x 1, 1 x 16 few",
        "5 x 1 of 2 x 7 later, 0 points, 1 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 2 of 16 lanes, 5 images; 46208; 16 threads: 1 x 1, 1 x 16 few" } },
    { "64, 64 x 14 x 14, 256; k1 x 1 s1 p0 d1 g1", {
        "1 x 1 of 14 x 14, 0 points, 16 x 1 pieces; 0 points, 16 x 1 pieces, 1 x 1 x 16 of 4 lanes dense, 1 images; 8066048; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 14 x 14, 0 points, 8 x 1 pieces; 0 points, 8 x 1 pieces, 1 x 1 x 8 of 8 lanes dense, 1 images; 14357504; 16 threads: 8 x 2, 8 x 2 few",
        "1 x 1 of 14 x 14, 0 points, 4 x 1 pieces; 0 points, 4 x 1 pieces, 1 x 1 x 4 of 16 lanes dense, 1 images; 27739136; 16 threads: 4 x 4, 4 x 4 few" } },
    { "64, 64 x 28 x 28, 128; k3 x 3 s2 p1 d1 g1", {
        "1 x 1 of 14 x 14, 0 points, 16 x 1 pieces; 0 points phases, 16 x 1 pieces, 1 x 3 x 48 of 4 lanes dense, 1 images; 11715456; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 14 x 14, 0 points, 8 x 1 pieces; 0 points phases, 8 x 1 pieces, 1 x 3 x 24 of 8 lanes dense, 1 images; 16020352; 16 threads: 8 x 2, 8 x 2",
        "1 x 1 of 14 x 14, 0 points, 4 x 1 pieces; 0 points phases, 4 x 1 pieces, 1 x 3 x 12 of 16 lanes dense, 1 images; 28175232; 16 threads: 4 x 4, 4 x 4" } },
    { "1, 64 x 28 x 28, 128; k3 x 3 s2 p1 d1 g1", {
        "7 x 1 of 2 x 14, 0 points, 2 x 8 pieces; 0 points phases, 1 x 4 pieces, 1 x 3 x 48 of 4 lanes dense, 1 images; 7284096; 16 threads: 2 x 8, 1 x 16",
        "14 x 1 of 1 x 14, 0 points, 2 x 8 pieces; 0 points phases, 1 x 4 pieces, 1 x 3 x 24 of 8 lanes dense, 1 images; 13952384; 16 threads: 2 x 8, 1 x 16",
        "14 x 2 of 1 x 7, 0 points, 2 x 8 pieces; 0 points phases, 1 x 4 pieces, 1 x 3 x 12 of 16 lanes dense, 1 images; 27288960; 16 threads: 2 x 8, 1 x 16" } },
    { "64, 64 x 28 x 28, 64; k3 x 3 s1 p1 d1 g64", {
        "1 x 1 of 28 x 28, 0 points, 128 x 1 pieces; 0 points, 128 x 1 pieces, 1 x 3 x 1 of 4 lanes, 1 images; 1171712; 16 threads: 128 x 1, 128 x 1",
        "1 x 1 of 28 x 28, 0 points, 128 x 1 pieces; 0 points, 128 x 1 pieces, 1 x 3 x 1 of 8 lanes, 1 images; 1142912; 16 threads: 128 x 1, 128 x 2 few",
        "1 x 1 of 28 x 28, 0 points, 128 x 1 pieces; 0 points, 128 x 1 pieces, 1 x 3 x 1 of 8 lanes, 2 images; 1130880; 16 threads: 128 x 1, 128 x 4 few" } },
    { "1, 64 x 28 x 28, 64; k3 x 3 s1 p1 d1 g64", {
        "4 x 1 of 7 x 28, 0 points, 2 x 1 pieces; 0 points few, 2 x 4 pieces, 1 x 3 x 1 of 4 lanes, 1 images; 888448; 16 threads: 2 x 1, 2 x 16 few",
        "4 x 2 of 7 x 14, 0 points, 2 x 1 pieces; 0 points few, 2 x 4 pieces, 1 x 3 x 1 of 8 lanes, 1 images; 906880; 16 threads: 2 x 1, 2 x 16 few",
        "14 x 1 of 2 x 28, 0 points, 2 x 1 pieces; 0 points few, 2 x 4 pieces, 1 x 3 x 1 of 8 lanes, 1 images; 1132288; 16 threads: 2 x 1, 2 x 16 few" } },
    { "16, 64 x 56 x 56, 128; k3 x 3 s2 p1 d1 g8", {
        "1 x 1 of 28 x 28, 0 points, 32 x 1 pieces; 0 points phases, 32 x 1 pieces, 1 x 3 x 6 of 4 lanes dense, 1 images; 3490432; 16 threads: 32 x 2, 32 x 4",
        "1 x 1 of 28 x 28, 0 points, 16 x 2 pieces; 0 points phases, 16 x 2 pieces, 1 x 3 x 3 of 8 lanes dense, 1 images; 14181504; 16 threads: 16 x 2, 16 x 8",
        "1 x 1 of 28 x 28, 0 points, 8 x 2 pieces; 0 points phases, 8 x 4 pieces, 1 x 3 x 2 of 16 lanes dense, 1 images; 14582912; 16 threads: 8 x 2, 8 x 16" } },
    { "16, 24 x 40 x 40, 24; k3 x 3 s1 p1 d1 g4 m2 / 2, 0", {
        "1 x 1 of 20 x 20, 6 points, 16 x 1 pieces; 6 points, 16 x 1 pieces, 1 x 3 x 5 of 4 lanes, 1 images; 1193536; 16 threads: 16 x 1, 16 x 4 few",
        "1 x 1 of 20 x 20, 6 points, 8 x 1 pieces; 6 points, 8 x 2 pieces, 1 x 3 x 3 of 8 lanes, 1 images; 2214976; 16 threads: 8 x 1, 8 x 8 few",
        "1 x 1 of 20 x 20, 6 points, 4 x 1 pieces; 0 points few, 4 x 4 pieces, 1 x 3 x 2 of 16 lanes, 1 images; 8186816; 16 threads: 4 x 1, 4 x 16 few" } },
    { "128, 16 x 16 x 16, 32; k3 x 3 s1 p1 d1 g1 relu", {
        "1 x 1 of 16 x 16, 6 points, 32 x 1 pieces; 6 points, 16 x 1 pieces, 1 x 3 x 12 of 4 lanes, 1 images; 2029184; 16 threads: 32 x 1, 16 x 1",
        "1 x 1 of 16 x 16, 6 points, 16 x 1 pieces; 6 points, 16 x 1 pieces, 1 x 3 x 6 of 8 lanes, 1 images; 3612544; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 16 x 16, 6 points, 8 x 1 pieces; 6 points, 8 x 1 pieces, 1 x 3 x 3 of 16 lanes, 1 images; 6630784; 16 threads: 8 x 2, 8 x 2 few" } },
    { "64, 3 x 14 x 14, 64; k3 x 3 s1 p1 d1 g1 relu", {
        "1 x 1 of 14 x 14, 0 points, 16 x 1 pieces; 0 points, 16 x 1 pieces, 1 x 3 x 3 of 4 lanes dense, 4 images; 1955968; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 14 x 14, 0 points, 8 x 1 pieces; 0 points, 8 x 1 pieces, 1 x 3 x 2 of 8 lanes dense, 5 images; 3661568; 16 threads: 8 x 2, 8 x 2 few",
        "1 x 1 of 14 x 14, 0 points, 4 x 1 pieces; 0 points, 4 x 1 pieces, 1 x 3 x 1 of 16 lanes dense, 5 images; 7106048; 16 threads: 4 x 4, 4 x 4 few" } },
    { "64, 64 x 14 x 14, 256; k1 x 1 s1 p0 d1 g1 relu", {
        "1 x 1 of 14 x 14, 0 points, 16 x 1 pieces; 0 points, 16 x 1 pieces, 1 x 1 x 16 of 4 lanes dense, 1 images; 8066048; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 14 x 14, 0 points, 8 x 1 pieces; 0 points, 8 x 1 pieces, 1 x 1 x 8 of 8 lanes dense, 1 images; 14357504; 16 threads: 8 x 2, 8 x 2 few",
        "1 x 1 of 14 x 14, 0 points, 4 x 1 pieces; 0 points, 4 x 1 pieces, 1 x 1 x 4 of 16 lanes dense, 1 images; 27739136; 16 threads: 4 x 4, 4 x 4 few" } },
    { "64, 256 x 14 x 14, 64; k1 x 1 s1 p0 d1 g1 relu", {
        "1 x 1 of 14 x 14, 0 points, 16 x 1 pieces; 0 points, 16 x 1 pieces, 1 x 1 x 64 of 4 lanes, 1 images; 4742144; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 14 x 14, 0 points, 8 x 1 pieces; 0 points, 8 x 1 pieces, 1 x 1 x 32 of 8 lanes, 1 images; 7427072; 16 threads: 8 x 2, 8 x 2 few",
        "1 x 1 of 14 x 14, 0 points, 4 x 1 pieces; 0 points, 4 x 1 pieces, 1 x 1 x 16 of 16 lanes, 1 images; 13586432; 16 threads: 4 x 4, 4 x 4 few" } },
    { "128, 16 x 5 x 2, 32; k3 x 3 s1 p1 d1 g1", {
        "1 x 1 of 5 x 2, 0 points, 32 x 1 pieces; 0 points, 16 x 1 pieces, 1 x 3 x 12 of 4 lanes dense, 4 images; 401920; 16 threads: 32 x 1, 16 x 1",
        "1 x 1 of 5 x 2, 0 points, 16 x 1 pieces; 0 points, 16 x 1 pieces, 1 x 3 x 6 of 8 lanes dense, 8 images; 481280; 16 threads: 16 x 1, 16 x 1",
        "1 x 1 of 5 x 2, 0 points, 8 x 1 pieces; 0 points, 8 x 1 pieces, 1 x 3 x 3 of 16 lanes dense, 9 images; 465664; 16 threads: 8 x 2, 8 x 2 few" } },
    { "16, 3 x 112 x 112, 64; k7 x 7 s2 p3 d1 g1", {
        "1 x 1 of 56 x 56, 0 points, 4 x 1 pieces; 0 points phases, 4 x 1 pieces, 1 x 7 x 6 of 4 lanes dense, 1 images; 29634816; 16 threads: 4 x 4, 4 x 4",
        "1 x 1 of 56 x 56, 0 points, 2 x 8 pieces; 0 points phases, 2 x 2 pieces, 1 x 7 x 3 of 8 lanes dense, 1 images; 58844928; 16 threads: 2 x 8, 2 x 8",
        "1 x 1 of 56 x 56, 0 points, 1 x 8 pieces; 0 points phases, 1 x 4 pieces, 1 x 7 x 2 of 16 lanes dense, 1 images; 117409280; 16 threads: 1 x 8, 1 x 16" } },
    { "8, 3 x 224 x 224, 64; k11 x 11 s4 p2 d1 g1 m2 / 2, 0", {
        "1 x 1 of 27 x 27, 0 points, 2 x 8 pieces; 0 points phases, 2 x 2 pieces, 1 x 11 x 9 of 4 lanes, 1 images; 21681664; 16 threads: 2 x 8, 2 x 8",
        "1 x 1 of 27 x 27, 0 points, 1 x 8 pieces; 0 points phases, 1 x 4 pieces, 1 x 11 x 5 of 8 lanes, 1 images; 42833152; 16 threads: 1 x 8, 1 x 16",
        "4 x 2 of 7 x 14, 0 points, 4 x 1 pieces; 0 points phases, 1 x 4 pieces, 1 x 11 x 3 of 16 lanes, 1 images; 85339392; 16 threads: 4 x 4, 1 x 16" } },
    { "32, 32 x 1 x 1024, 64; k1 x 9 s2 p4 d1 g1", {
        "1 x 1 of 1 x 512, 0 points, 8 x 1 pieces; 0 points phases, 8 x 1 pieces, 1 x 1 x 72 of 4 lanes dense, 1 images; 6992896; 16 threads: 8 x 2, 8 x 2",
        "1 x 1 of 1 x 512, 0 points, 4 x 1 pieces; 0 points phases, 4 x 1 pieces, 1 x 1 x 36 of 8 lanes dense, 1 images; 13000704; 16 threads: 4 x 4, 4 x 4",
        "1 x 1 of 1 x 512, 0 points, 2 x 8 pieces; 0 points phases, 2 x 2 pieces, 1 x 1 x 18 of 16 lanes dense, 1 images; 25460224; 16 threads: 2 x 8, 2 x 8" } },
    { "5, 4 x 11 x 13, 6; k3 x 3 s1 p2 d2 g2", {
        "3 x 1 of 4 x 13, 0 points, 4 x 1 pieces; 0 points few, 2 x 2 pieces, 3 x 3 x 1 of 4 lanes, 4 images; 100928; 16 threads: 4 x 1, 2 x 8 few",
        "3 x 1 of 4 x 13, 0 points, 2 x 1 pieces; 0 points few, 1 x 4 pieces, 3 x 3 x 1 of 8 lanes, 4 images; 109760; 16 threads: 2 x 1, 1 x 16 few",
        "3 x 1 of 4 x 13, 0 points, 1 x 1 pieces; 0 points few, 1 x 4 pieces, 3 x 3 x 1 of 8 lanes, 4 images; 125248; 16 threads: 1 x 1, 1 x 16 few" } },
    { "17, 4 x 11 x 13, 8; k3 x 3 s1 p1 d1 g1, circular", {
        "1 x 1 of 11 x 13, 6 points, 5 x 1 pieces; 6 points fold, 5 x 1 pieces, 1 x 3 x 3 of 4 lanes dense, 4 images; 439872; 16 threads: 5 x 1, 5 x 4",
        "1 x 1 of 11 x 13, 6 points, 3 x 1 pieces; 6 points fold, 3 x 2 pieces, 1 x 3 x 2 of 8 lanes dense, 5 images; 838336; 16 threads: 3 x 1, 3 x 6",
        "3 x 1 of 4 x 13, 6 points, 4 x 1 pieces; 6 points fold, 2 x 2 pieces, 1 x 3 x 1 of 16 lanes dense, 5 images; 1649792; 16 threads: 4 x 1, 2 x 8" } },
    { "1, 4 x 11 x 13, 8; k3 x 3 s2 p1 d1 g1, circular", {
        "2 x 2 of 3 x 4, 0 points, 1 x 1 pieces; 6 points fold, 1 x 4 pieces, 1 x 3 x 3 of 4 lanes dense, 4 images; 349120; 16 threads: 1 x 1, 1 x 16",
        "6 x 1 of 1 x 7, 0 points, 1 x 1 pieces; 6 points fold, 1 x 4 pieces, 1 x 3 x 2 of 8 lanes dense, 5 images; 670144; 16 threads: 1 x 1, 1 x 16",
        "6 x 2 of 1 x 4, 0 points, 1 x 1 pieces; 6 points fold, 1 x 4 pieces, 1 x 3 x 1 of 16 lanes dense, 5 images; 1328064; 16 threads: 1 x 1, 1 x 16" } },
    { "1, 2 x 6 x 6, 2; k3 x 3 s1 p0 d1 g1", {
        "4 x 1 of 1 x 4, 0 points, 1 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 2 of 4 lanes, 4 images; 6720; 16 threads: 1 x 1, 1 x 16 few",
        "4 x 2 of 1 x 2, 0 points, 1 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 1 of 8 lanes, 8 images; 10048; 16 threads: 1 x 1, 1 x 16 few",
        "4 x 4 of 1 x 1, 0 points, 1 x 1 pieces; 0 points few, 1 x 4 pieces, 1 x 3 x 1 of 8 lanes, 16 images; 16704; 16 threads: 1 x 1, 1 x 16 few" } },
    { "linear 1, 784, 512", {
        "inputs 92544",
        "inputs 166400",
        "inputs 314112" } },
    { "linear 5, 784, 10", {
        "inputs 51712",
        "inputs 51712",
        "inputs 76800" } },
    { "linear 128, 784, 512", {
        "samples 1648768",
        "samples 1714432",
        "samples 1845760" } }
};

static const cnn__isa *const isas[] = {
    &cnn__isa_baseline,
#ifdef CNN__X86
    &cnn__isa_avx2, &cnn__isa_avx512
#endif
};
enum { ISAS = sizeof isas / sizeof *isas, ROWS = sizeof table / sizeof *table };

static cnn_conv2d_shape conv_of(const char *text)
{
    int height, width, p, k, stride, pad;
    cnn_conv2d_shape s;
    memset(&s, 0, sizeof s);
    k = sscanf(text, "%d, %d x %d x %d, %d; k%d x %d s%d p%d d%d g%d m%d / %d, %d", &s.batch, &s.in_channels, &s.in_height, &s.in_width,
               &s.out_channels, &s.kernel_height, &s.kernel_width, &s.stride_height, &p, &s.dilation_height, &s.groups,
               &s.pool.kernel_height, &stride, &pad);
    if (k != 11 && k != 14) fprintf(stderr, "test_plan: \"%s\" has %d numbers\n", text, k), exit(1);
    s.stride_width = s.stride_height;
    s.dilation_width = s.dilation_height;
    s.pad_top = s.pad_bottom = s.kernel_height > 1 ? p : 0;
    s.pad_left = s.pad_right = p;
    height = s.in_height + s.pad_top + s.pad_bottom - s.dilation_height * (s.kernel_height - 1) - 1;
    width = s.in_width + 2 * p - s.dilation_width * (s.kernel_width - 1) - 1;
    s.out_height = height / s.stride_height + 1;
    s.out_width = width / s.stride_width + 1;
    if (strstr(text, "relu")) s.activation = CNN_RELU;
    if (strstr(text, "circular")) s.padding_mode = CNN_CIRCULAR;
    if (k == 11) return s;
    s.pool.batch = s.batch;
    s.pool.channels = s.out_channels;
    s.pool.kernel_width = s.pool.kernel_height;
    s.pool.stride_height = s.pool.stride_width = stride;
    s.pool.pad_height = s.pool.pad_width = pad;
    s.pool.in_height = s.out_height;
    s.pool.in_width = s.out_width;
    s.pool.out_height = (s.out_height + 2 * pad - s.pool.kernel_height) / stride + 1;
    s.pool.out_width = (s.out_width + 2 * pad - s.pool.kernel_height) / stride + 1;
    return s;
}

/* The way of a shape with two threads, and its pieces with 16 */
static void way_of(const char *text, const cnn__isa *isa, char *to, size_t room)
{
    cnn__chosen chosen[CNN__CHOSEN];
    cnn__simd_context context;
    cnn_conv2d_shape s, bundle, few;
    cnn__cut cut;
    cnn__conv_plan p, b, p_16, b_16;
    int bundles;
    memset(&context, 0, sizeof context);
    memset((void *)chosen, 0, sizeof chosen);
    context.threads = 2;
    context.isa = isa;
    context.chosen = chosen;
    if (!strncmp(text, "linear", 6)) {
        cnn_linear_shape l;
        memset(&l, 0, sizeof l);
        sscanf(text, "linear %d, %d, %d", &l.batch, &l.in_features, &l.out_features);
        snprintf(to, room, "%s %lu", cnn__fills_lanes(l.batch, isa->lanes) ? "samples" : "inputs",
                 (unsigned long)cnn__simd_linear_work(&context, &l));
        return;
    }
    s = conv_of(text);
    bundle = cnn__bundle_of(&s, isa);
    cut = cnn__cut_of(&context, &bundle);
    bundles = s.groups / bundle.groups;
    p = cnn__plan_cut(&cut, &bundle, isa, 2);
    b = cnn__plan_conv(&bundle, isa, 2, 1);
    p_16 = cnn__plan_cut(&cut, &bundle, isa, 16);
    b_16 = cnn__plan_conv(&bundle, isa, 16, 1);
    snprintf(to, room, "%d x %d of %d x %d%s, %d points%s, %d x %d pieces; %d points%s%s%s, %d x %d pieces, %d x %d x %d of %d lanes%s, %d images; %lu; 16 threads: %d x %d, %d x %d%s",
             cut.down, cut.right, cut.rows, cut.columns, cut.pool_later ? " later" : "", p.forward.points,
             p.own_u_size ? " own" : "", p.blocks * bundles, p.shares,
             b.backward.points, b.phases ? " phases" : "", b.fold ? " fold" : "", cnn__few_back(&s, isa, 2, &few) ? " few" : "",
             b.pieces * bundles, b.shares, b.window.calls, b.window.rows, b.window.vectors, b.window.isa->lanes, b.dense ? " dense" : "", b.images,
             (unsigned long)cnn__simd_conv2d_work(&context, &s), p_16.blocks * bundles, p_16.shares, b_16.pieces * bundles, b_16.shares, cnn__few_back(&s, isa, 16, &few) ? " few" : "");
}

static void print_table(void)
{
    char way[300];
    int r, k;
    for (r = 0; r < ROWS; r++) {
        printf("    { \"%s\", {\n", table[r].shape);
        for (k = 0; k < ISAS; k++) {
            way_of(table[r].shape, isas[k], way, sizeof way);
            printf("        \"%s\"%s\n", way, k + 1 < ISAS ? "," : " } },");
        }
    }
}

static void test_ways(void)
{
    char way[300];
    int r, k;
    for (r = 0; r < ROWS; r++)
        for (k = 0; k < ISAS; k++) {
            way_of(table[r].shape, isas[k], way, sizeof way);
            CHECK(!strcmp(way, table[r].way[k]), "%s, %s: %s, not %s", table[r].shape, isas[k]->name, way, table[r].way[k]);
        }
}

/* Vectors for few floats: those of 8 lanes in place of 16. Shorter ones do not multiply and add at once. */
static void test_narrow(void)
{
    int k, floats, best;
    for (k = 0; k < ISAS; k++)
        for (floats = 1; floats < 40; floats++) {
            best = isas[k]->lanes == 16 && floats <= 8 ? 1 : k;
            CHECK(cnn__narrow_isa(isas[k], floats) == isas[best], "%d floats in %s: %s", floats, isas[k]->name, cnn__narrow_isa(isas[k], floats)->name);
        }
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--table")) { print_table(); return 0; }
    test_narrow();
    if (cnn__isa_baseline.lanes != 4 || cnn__isa_baseline.rows != 4 || sizeof(ptrdiff_t) != 8)
        SKIP("the ways of x86-64 were not compared: this is another machine");
    else test_ways();
    return test_end("test_plan");
}
