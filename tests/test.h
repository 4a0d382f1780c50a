/* test.h - what the test programs share: checks that count, and the closing line.
   A program calls CHECK for each thing it proves and returns test_end(). tests/run adds the lines up. */
#ifndef TEST_H
#define TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed, test_skipped;

/* CHECK(condition, "what was compared: %g and %g", a, b): the text is printed only where the condition fails. */
#define CHECK(condition, ...)                                                     \
    do {                                                                          \
        if (condition) test_passed++;                                             \
        else {                                                                    \
            test_failed++;                                                        \
            printf("FAIL %s:%d: ", __FILE__, __LINE__);                           \
            printf(__VA_ARGS__);                                                  \
            printf("\n");                                                         \
        }                                                                         \
    } while (0)

#define SKIP(...)                                                                 \
    do {                                                                          \
        test_skipped++;                                                           \
        printf("SKIP ");                                                          \
        printf(__VA_ARGS__);                                                      \
        printf("\n");                                                             \
    } while (0)

/* The largest |a - b| / (absolute + relative |b|): at most 1 where all are within tolerance. NaN anywhere gives HUGE_VAL. */
static inline double test_distance(const float *a, const float *b, size_t n, double absolute, double relative)
{
    double worst = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        double d = fabs((double)a[i] - b[i]) / (absolute + relative * fabs(b[i]));
        if (!(d <= worst)) worst = d == d ? d : HUGE_VAL;
    }
    return worst;
}

static inline int test_end(const char *name)
{
    printf("%s: %d passed, %d failed", name, test_passed, test_failed);
    if (test_skipped) printf(", %d skipped", test_skipped);
    printf("\n");
    return test_failed != 0 || test_passed + test_skipped == 0;
}

#endif
