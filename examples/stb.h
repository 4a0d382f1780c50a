/* stb.h - stb_image and stb_image_write (Debian: libstb-dev; or copies beside cnn.h). */
#ifndef STB_H
#define STB_H

#ifdef __GNUC__
#pragma GCC system_header                   /* their code is not written for -Wall -Wextra -pedantic */
#endif
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb_image_write.h>

#endif
