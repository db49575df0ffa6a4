import { type LabelledImages, readMnist } from './mnist.js';
import { Omniglot } from './omniglot.js';
import { type OneShotRun, readOneShotRuns } from './one-shot.js';
import { dataFolder, readDataFile } from './path.js';

/** Which alphabets Omniglot's background set has: all 30, or the five of a minimal set. */
export type OmniglotBackground = 'background' | 'background_small1' | 'background_small2';

/**
 * Omniglot from `<data>/omniglot`.
 *
 * @param data the data root; see `dataFolder`.
 * @throws DataError naming the folder or file that is missing or damaged.
 */
export function loadOmniglot(data?: string, background: OmniglotBackground = 'background'): Omniglot {
  const folder = dataFolder('omniglot', data);
  return new Omniglot(
    readDataFile(folder, `images_${background}.zip`),
    readDataFile(folder, 'images_evaluation.zip'),
  );
}

/** The 20 official one-shot runs from `<data>/omniglot/all_runs.zip`; errors as `loadOmniglot`. */
export function loadOneShotRuns(data?: string): OneShotRun[] {
  return readOneShotRuns(readDataFile(dataFolder('omniglot', data), 'all_runs.zip'));
}

/**
 * MNIST from `<data>/mnist`: the official test set, and as training set the 10,000 pictures of `train10k-*`.
 * Errors as `loadOmniglot`.
 */
export function loadMnist(data?: string): { train: LabelledImages; test: LabelledImages } {
  const folder = dataFolder('mnist', data);
  const part = (name: string): LabelledImages =>
    readMnist(
      readDataFile(folder, `${name}-images-idx3-ubyte.gz`),
      readDataFile(folder, `${name}-labels-idx1-ubyte.gz`),
      name,
    );
  return { train: part('train10k'), test: part('t10k') };
}
