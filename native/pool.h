// The process-wide thread pool behind parallelFor() in kernel.h.
#pragma once

namespace wl {

// CPUs this process may use: those of its affinity mask, or all where the system does not tell.
int availableThreads();

// Until changed, parallelFor() called on this thread uses at most `count` threads, itself among them.
void setThreads(int count);

}  // namespace wl
