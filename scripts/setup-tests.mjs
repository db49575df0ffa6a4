/** Runs before vitest's workers start: tests must see the addon, the shaders and dist/ of the present sources. */
import { build } from './build.mjs';

export function setup() {
  const failed = build();
  if (failed.length === 0) return;
  const message = `build of ${failed.join(', ')} failed, see above`;
  if (process.env.CI) throw new Error(message);
  console.error(`${message}: tests that need it will fail`);
}
