/** How Node waits for a device that computes on the processor itself. */

/** A nap takes so many milliseconds at first, */
const FIRST_MS = 0.05;
/** then this share of what the wait has taken: waking costs the adapter more than the nap costs the wait, */
const SHARE = 0.05;
/** up to so many. */
const LONGEST_MS = 1;
const nobody = new Int32Array(new SharedArrayBuffer(4));
let awaited = 0;
let napping = false;
/** When a wait began or ended last. */
let since = 0;

/**
 * Waits for `news` of a device. Dawn's binding to Node asks for news whenever the event loop comes round, without a
 * rest, and so keeps a core from the adapter that computes on it; here the thread sleeps between the rounds. Other
 * events of the process are late by a nap.
 */
export async function asleep<T>(news: Promise<T>): Promise<T> {
  if (awaited++ === 0) since = performance.now();
  if (!napping) setImmediate(nap);
  napping = true;
  try {
    return await news;
  } finally {
    awaited--;
    since = performance.now();
  }
}

function nap(): void {
  napping = awaited > 0;
  if (!napping) return;
  const share = SHARE * (performance.now() - since);
  Atomics.wait(nobody, 0, 0, Math.min(Math.max(FIRST_MS, share), LONGEST_MS));
  setImmediate(nap);
}
