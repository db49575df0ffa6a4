// The process-wide thread pool behind parallelFor() in kernel.h.
#pragma once

namespace wl {

// CPUs this process may use: by its affinity mask and control group where there are such, else all.
int availableThreads();

// Until changed, parallelFor() called on this thread uses at most `count` threads, itself among them.
void setThreads(int count);

}  // namespace wl
