/* plan.h - between plan.c and plan.cu */
#ifdef __cplusplus
extern "C" {
#endif
void plan_begin(void);                                                 /* forget what was launched */
int plan_end(const char *network, int most, double target);            /* print it; 0: a kernel is not described */
#ifdef __cplusplus
}
#endif
