/** How Node waits for a device that computes on the processor itself. */

const NAP_MS = 0.05;
const nobody = new Int32Array(new SharedArrayBuffer(4));
let awaited = 0;
let napping = false;

/**
 * Waits for `news` of a device. Dawn's binding to Node asks for news whenever the event loop comes round, without a
 * rest, and so keeps a core from the adapter that computes on it; here the thread sleeps between the rounds. Other
 * events of the process are late by a nap (with Linux's timers, 0.1 ms).
 */
export async function asleep<T>(news: Promise<T>): Promise<T> {
  awaited++;
  if (!napping) setImmediate(nap);
  napping = true;
  try {
    return await news;
  } finally {
    awaited--;
  }
}

function nap(): void {
  napping = awaited > 0;
  if (!napping) return;
  Atomics.wait(nobody, 0, 0, NAP_MS);
  setImmediate(nap);
}
