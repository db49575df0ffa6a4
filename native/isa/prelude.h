// What kernels may use from outside their namespace. Included before the target is switched, and C headers only: an
// inline function of the C++ library compiled here for a newer CPU could be linked into code that runs on an old one.
#pragma once
#include <math.h>
#include <string.h>

#include "../dispatch.h"
#include "../kernel.h"
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
