/** The backends that a test file runs on. */
import { afterAll, beforeAll, type TestContext } from 'vitest';
import { type Backend, open } from '../src/index.js';

type Name = Parameters<typeof open>[0];

/**
 * Opens these backends before the tests of a file, and closes them after. The function returned gives one of them to a
 * test, which it skips where the backend cannot be had; in CI that fails the file.
 */
export function opened(...names: Name[]): (name: Name, context: TestContext) => Backend {
  const found = new Map<Name, Backend>();
  let missing = '';
  beforeAll(async () => {
    for (const name of names)
      try {
        found.set(name, await open(name));
      } catch (error) {
        if (process.env.CI) throw error;
        missing = String(error);
      }
  });
  afterAll(async () => {
    for (const backend of found.values()) {
      await backend.sync();
      backend.dispose();
    }
  });
  return (name, context) => found.get(name) ?? context.skip(missing);
}
