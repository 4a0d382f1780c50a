/* plan.c - one training step of each lecture network, batch 128, float32, for plan.cu to write down: make cuda-plan */
#define CNN_IMPLEMENTATION
#include "../../cnn.h"
#include "../lecture.h"
#include "plan.h"

static int plan_step(const char *name, void (*build)(cnn_net *), int channels, int size, int most, double target)
{
    enum { BATCH = 128, CLASSES = 10 };
    size_t bytes = (size_t)BATCH * (size_t)(channels * size * size);
    unsigned char *pictures = (unsigned char *)calloc(bytes, 1);
    static int labels[BATCH];
    cnn_data *data = cnn_data_new(.count = BATCH, .channels = channels, .height = size, .width = size, .classes = CLASSES,
                                  .bytes = pictures, .labels = labels, .constant = 1);
    cnn_loader *loader = cnn_loader_new(data, .batch_size = BATCH);
    cnn_net *net = cnn_new(channels, size, size);
    cnn_batch batch;
    int passed, step;
    cnn_to(net, "cuda");
    build(net);
    cnn_adam(net, .lr = 1e-3f);
    cnn_next(loader, &batch);
    for (step = 0; step < 2; step++) {      /* twice: what the first one prepares is no part of a step */
        plan_begin();
        cnn_forward(net, &batch);
        cnn_cross_entropy(net, &batch);
        cnn_zero_grad(net);
        cnn_backward(net);
        cnn_step(net);
        cnn_loss(net);                      /* waits, so that the launches are there */
    }
    passed = plan_end(name, most, target) && !cnn_error(net);
    if (cnn_error(net)) printf("%s: %s\n", name, cnn_error(net));
    cnn_free(net);
    cnn_loader_free(loader);
    cnn_data_free(data);
    free(pictures);
    return passed;
}

int main(void)
{
    int passed = plan_step("LeNet-5", network_lenet5, 1, 28, 14, 110);
    passed &= plan_step("MNIST CNN", network_mnist_cnn, 1, 28, 0, 260);
    passed &= plan_step("CIFAR-10 CNN", network_cifar10_cnn, 3, 32, 0, 420);
    return !passed;
}
